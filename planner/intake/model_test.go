package intake

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/repromill/repromill/planner/fetch"
)

const sha = "0123456789abcdef0123456789abcdef01234567"

const modelAPI = `{"_id":"65f","id":"ada-example/lens-7b-NVFP4","private":false,"pipeline_tag":"text-generation","library_name":"transformers",
"tags":["transformers","safetensors","qwen3","base_model:ada-example/lens-7b","arxiv:2511.98765","arxiv:2511.98765","arxiv:not-an-id","license:apache-2.0","region:us"],
"downloads":12,"likes":3,"modelId":"ada-example/lens-7b-NVFP4","author":"ada-example","sha":"` + sha + `","lastModified":"2026-01-02T03:04:05.000Z","gated":false,"disabled":false,
"config":{"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3"},
"cardData":{"license":"apache-2.0","base_model":["ada-example/lens-7b"],"datasets":"x"},
"safetensors":{"parameters":{"BF16":1000,"F8_E4M3":500,"U8":7000},"total":8500},
"siblings":[{"rfilename":".gitattributes","size":1519},{"rfilename":"README.md","size":200},{"rfilename":"config.json","size":900},{"rfilename":"hf_quant_config.json","size":90},
{"rfilename":"model-00001-of-00002.safetensors","size":5000,"lfs":{"sha256":"aa","size":5000,"pointerSize":135}},{"rfilename":"model-00002-of-00002.safetensors","size":4000,"lfs":{"sha256":"bb","size":4000}},
{"rfilename":"model.safetensors.index.json","size":100},{"rfilename":"../../etc/passwd","size":1}],"spaces":[],"usedStorage":9000}`

const modelConfig = `{"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3","torch_dtype":"bfloat16","num_hidden_layers":36,
"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4","config_groups":{}}}`

const modelID = "ada-example/lens-7b-NVFP4"

func modelWorld(t *testing.T) *world {
	w := newWorld(t)
	js := func(body string) answer { return answer{typ: "application/json", body: body} }
	w.set(fetch.HF, "/api/models/"+modelID+"?blobs=true", js(modelAPI))
	w.set(fetch.HF, "/api/models/"+modelID+"/revision/refs%2Fpr%2F3?blobs=true", js(modelAPI))
	base := "/" + modelID + "/resolve/" + sha + "/"
	w.set(fetch.HF, base+"config.json", js(modelConfig))
	w.set(fetch.HF, base+"hf_quant_config.json", js(`{"producer":{"name":"modelopt"},"quantization":{"quant_algo":"NVFP4"}}`))
	w.set(fetch.HF, base+"README.md", answer{typ: "text/plain", body: "# Lens\nquantised\n"})
	w.set(fetch.HF, base+"model.safetensors.index.json", js(`{"metadata":{},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}`))
	return w
}

func TestModel(t *testing.T) {
	w := modelWorld(t)
	m, err := w.intake().Model(t.Context(), modelID, "")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, w, "model.golden.json", m)
	if got := w.times(fetch.HF, "/"); got != 5 {
		t.Errorf("%d requests: %v", got, w.asked)
	}
	pr, err := w.intake().Model(t.Context(), modelID, "refs/pr/3")
	if err != nil || pr.Revision != sha {
		t.Errorf("refs/pr/3: %v", err)
	}
}

func hubErr(status int, code, message string) answer {
	return answer{status: status, typ: "application/json", body: `{"error":"` + message + `"}`, header: map[string]string{"X-Error-Code": code, "X-Error-Message": message}}
}

func TestModelRefused(t *testing.T) {
	cases := map[string]struct {
		api   answer
		state string // of an AccessError, or "not_found", "throttled", "answer"
		fix   string
	}{
		"unknown":            {hubErr(404, "RepoNotFound", "Repository not found"), "not_found", "case matters"},
		"unknown or private": {hubErr(401, "RepoNotFound", "Invalid username or password."), "not_found_or_private", "HF_TOKEN"},
		"gated":              {hubErr(401, "GatedRepo", "Access to model x is restricted."), "gated", "accept the conditions at https://huggingface.co/" + modelID},
		"gated with token":   {hubErr(403, "GatedRepo", "not in the authorized list"), "gated", "accept the conditions"},
		"forbidden":          {hubErr(403, "", ""), "forbidden", "account of HF_TOKEN"},
		"disabled":           {hubErr(403, "DisabledRepo", "disabled"), "disabled", "another copy"},
		"taken down":         {hubErr(451, "", ""), "disabled", "another copy"},
		"revision":           {hubErr(404, "RevisionNotFound", "Invalid rev id: v9"), "not_found", "/refs"},
		"throttled":          {hubErr(429, "", "Too many"), "throttled", ""},
		"web page":           {answer{typ: "text/html", body: "<html>sign in</html>"}, "answer", ""},
		"list":               {answer{typ: "application/json", body: "[]"}, "answer", ""},
		"no id":              {answer{typ: "application/json", body: "{}"}, "answer", ""},
		"cut":                {answer{typ: "application/json", body: modelAPI[:500]}, "answer", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := modelWorld(t)
			w.set(fetch.HF, "/api/models/"+modelID+"?blobs=true", c.api)
			_, err := w.intake().Model(t.Context(), modelID, "")
			state := ""
			var access *AccessError
			var answer *AnswerError
			var slow *ThrottledError
			switch {
			case errors.As(err, &access):
				state = access.State
			case isNotFound(err):
				state = "not_found"
			case errors.As(err, &slow):
				state = "throttled"
			case errors.As(err, &answer):
				state = "answer"
			}
			if state != c.state {
				t.Fatalf("state %q, want %q: %v", state, c.state, err)
			}
			var user interface{ UserError() string }
			if is := errors.As(err, &user); is != (c.fix != "") || is && !strings.Contains(user.UserError(), c.fix) {
				t.Errorf("%v: fix, want %q", err, c.fix)
			}
		})
	}
	for _, id := range []string{"", "a/b/c", "../x", "hf://a/b", "a b", "datasets/x", "org/name@main"} {
		_, err := newWorld(t).intake().Model(t.Context(), id, "")
		var user interface{ UserError() string }
		if !errors.As(err, &user) {
			t.Errorf("%q: %v is not a user error", id, err)
		}
	}
}

func TestModelOddities(t *testing.T) {
	base := "/" + modelID + "/resolve/" + sha + "/"
	gatedAPI := strings.Replace(modelAPI, `"gated":false`, `"gated":"manual"`, 1)
	cases := map[string]struct {
		change   func(w *world)
		warnings string // without file_name, which every one of them has
		access   string
	}{
		"renamed": {func(w *world) {
			w.set(fetch.HF, "/api/models/"+modelID+"?blobs=true", answer{typ: "application/json", body: strings.Replace(modelAPI, modelID, "ada-lab/lens", 1)})
			for _, f := range []string{"config.json", "hf_quant_config.json", "README.md", "model.safetensors.index.json"} {
				w.set(fetch.HF, "/ada-lab/lens/resolve/"+sha+"/"+f, w.answers[fetch.HF][base+f])
			}
		}, "model_renamed", "open"},
		"gated, no token": {func(w *world) {
			w.set(fetch.HF, "/api/models/"+modelID+"?blobs=true", answer{typ: "application/json", body: gatedAPI})
			w.set(fetch.HF, base+"config.json", hubErr(401, "GatedRepo", "Access to model is restricted"))
		}, "gated", "gated"},
		"gated, granted": {func(w *world) {
			w.set(fetch.HF, "/api/models/"+modelID+"?blobs=true", answer{typ: "application/json", body: gatedAPI})
		}, "", "gated_granted"},
		"no config": {func(w *world) {
			w.set(fetch.HF, base+"config.json", hubErr(404, "EntryNotFound", "Entry not found"))
		}, "no_config", "open"},
		"config is no JSON": {func(w *world) { w.set(fetch.HF, base+"config.json", answer{body: `{"a": NaN}`}) }, "bad_config", "open"},
		"config is a list":  {func(w *world) { w.set(fetch.HF, base+"config.json", answer{body: `[1]`}) }, "bad_config", "open"},
		"remote code": {func(w *world) {
			w.set(fetch.HF, base+"config.json", answer{body: `{"auto_map":{"AutoModel":"modeling_x.X"},"architectures":"X"}`})
		}, "remote_code", "open"},
		"index names other files": {func(w *world) {
			w.set(fetch.HF, base+"model.safetensors.index.json", answer{body: `{"weight_map":{"a":"model-00003-of-00002.safetensors"}}`})
		}, "weights_index_mismatch", "open"},
		"pickle only": {func(w *world) {
			w.set(fetch.HF, "/api/models/"+modelID+"?blobs=true", answer{body: strings.NewReplacer(".safetensors\"", ".bin\"", "model.safetensors.index.json", "training_args.bin").Replace(modelAPI)})
		}, "pickle_weights", "open"},
		"no card":        {func(w *world) { w.set(fetch.HF, base+"README.md", answer{status: 404}) }, "", "open"},
		"card too large": {func(w *world) { w.set(fetch.HF, base+"README.md", answer{body: strings.Repeat("x", 2<<20)}) }, "card_unavailable", "open"},
		"no commit": {func(w *world) {
			w.set(fetch.HF, "/api/models/"+modelID+"?blobs=true", answer{body: strings.Replace(modelAPI, sha, "main", 1)})
			for _, f := range []string{"config.json", "hf_quant_config.json", "README.md", "model.safetensors.index.json"} {
				w.set(fetch.HF, "/"+modelID+"/resolve/main/"+f, w.answers[fetch.HF][base+f])
			}
		}, "no_commit", "open"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := modelWorld(t)
			c.change(w)
			m, err := w.intake().Model(t.Context(), modelID, "")
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Fields(codes(m.Warnings))
			got = slices.DeleteFunc(got, func(s string) bool { return s == "file_name" })
			if strings.Join(got, " ") != c.warnings || m.Access != c.access {
				t.Errorf("warnings %q access %q, want %q %q: %+v", got, m.Access, c.warnings, c.access, m.Warnings)
			}
			for _, f := range m.Files {
				if strings.Contains(f.Path, "..") {
					t.Errorf("file %q", f.Path)
				}
			}
		})
	}
}

func TestModelServerFails(t *testing.T) {
	w := modelWorld(t)
	w.set(fetch.HF, "/"+modelID+"/resolve/"+sha+"/config.json", answer{status: http.StatusInternalServerError})
	if _, err := w.intake().Model(t.Context(), modelID, ""); statusOf(err) != 500 {
		t.Errorf("a config that could not be had is taken for none: %v", err)
	}
}

// TestModelInMirror reads a mirror that somebody wrote by hand, with the names
// a person would give.
func TestModelInMirror(t *testing.T) {
	w := newWorld(t)
	w.cfg.Mirror = mirror(t, map[string]string{
		"huggingface.co/api/models/" + modelID:                    modelAPI,
		"huggingface.co/" + modelID + "/resolve/main/config.json": modelConfig,
	})
	m, err := w.intake().Model(t.Context(), modelID, "")
	if err != nil {
		t.Fatal(err)
	}
	if m.Revision != sha || m.Config == nil || m.Card != "" {
		t.Errorf("%+v", m)
	}
	if _, err := w.intake().Model(t.Context(), "other/model", ""); !isMissingFromMirror(err) {
		t.Errorf("not in the mirror: %v", err)
	}
}
