package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestPastedURL goes the whole way once, and once more without asking anybody.
func TestPastedURL(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	commit := w.queueLens(0)
	o := w.must(t, 0, "plan", "--json", "https://arxiv.org/abs/2511.98765")
	p := decode[planOf](t, o.stdout)
	if p.Paper.Version != "v2" || p.Source.Repo != "https://github.com/ada-example/queue_lens" || p.Source.Commit != commit || p.Source.StatedBy != "author" {
		t.Errorf("plan %+v", p)
	}
	o = w.must(t, 0, "run", "https://arxiv.org/abs/2511.98765", "--yes")
	has(t, o.stdout, "aligned", "93.4")
	before := len(w.requests("", ""))
	o = w.must(t, 0, "run", "https://arxiv.org/abs/2511.98765", "--yes", "--quiet")
	has(t, o.stdout, "aligned", "93.4")
	if again := w.requests("", "")[before:]; len(again) != 0 {
		t.Errorf("the second run asked for %+v", again)
	}
	has(t, w.must(t, 0, "results", "verify").stdout, "clean")
}

const modelID = "ada-example/lens-7b-NVFP4"

// lensModel puts a model on the hub.
func (w *world) lensModel() {
	const sha = "0123456789abcdef0123456789abcdef01234567"
	js := func(path, body string) { w.answer("hf", path, 200, "application/json", body) }
	js("/api/models/"+modelID+"?blobs=true", `{"_id":"65f","id":"`+modelID+`","private":false,"pipeline_tag":"text-generation","library_name":"transformers",
"tags":["transformers","safetensors","qwen3","license:apache-2.0"],"sha":"`+sha+`","gated":false,"disabled":false,
"cardData":{"license":"apache-2.0","base_model":["ada-example/lens-7b"]},"safetensors":{"parameters":{"BF16":1000,"F8_E4M3":500,"U8":7000},"total":8500},
"siblings":[{"rfilename":"README.md","size":200},{"rfilename":"config.json","size":900},{"rfilename":"hf_quant_config.json","size":90},
{"rfilename":"model.safetensors","size":5000,"lfs":{"sha256":"aa","size":5000,"pointerSize":135}}],"usedStorage":9000}`)
	base := "/" + modelID + "/resolve/" + sha + "/"
	js(base+"config.json", `{"architectures":["Qwen3ForCausalLM"],"model_type":"qwen3","torch_dtype":"bfloat16","num_hidden_layers":36,
"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4","config_groups":{}}}`)
	js(base+"hf_quant_config.json", `{"producer":{"name":"modelopt"},"quantization":{"quant_algo":"NVFP4"}}`)
	w.answer("hf", base+"README.md", 200, "text/plain", "# Lens\nquantised\n")
}

// TestTokensStayAtTheirHost sends every token the environment may hold through
// every way out and looks where each of them arrived.
func TestTokensStayAtTheirHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.queueLens(0)
	w.lensModel()
	// The hub hands one file to another site, and one to nobody's host.
	base := "/" + modelID + "/resolve/0123456789abcdef0123456789abcdef01234567/"
	stranger := newWorld(t)
	w.handle("hf", base+"README.md", func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, w.servers["arxiv"].URL+"/html/card", http.StatusFound)
	})
	w.answer("arxiv", "/html/card", 200, "text/plain", "# Lens\n")
	w.handle("hf", base+"hf_quant_config.json", func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, stranger.servers["hf"].URL+"/x", http.StatusFound)
	})
	env := []string{"HF_TOKEN=hf_secret", "GITHUB_TOKEN=gh_secret", "GH_TOKEN=gh_secret", "GITLAB_TOKEN=gl_secret"}
	for _, target := range []string{"2511.98765", modelID, "https://github.com/ada-example/queue_lens"} {
		if o := w.run(env, "plan", "--json", target); o.code != 0 && o.code != 2 {
			t.Errorf("%s: exit %d\n%s", target, o.code, o.stderr)
		} else if strings.Contains(o.stdout+o.stderr, "_secret") {
			t.Errorf("%s shows a token:\n%s%s", target, o.stdout, o.stderr)
		}
	}
	sites := map[string]int{}
	for _, r := range w.requests("", "") {
		sites[r.site]++
		got := fmt.Sprint(r.header)
		if r.site == "hf" && r.header.Get("Authorization") != "Bearer hf_secret" {
			t.Errorf("the hub was asked for %s without its token", r.path)
		}
		if r.site == "hf" {
			got = strings.ReplaceAll(got, "hf_secret", "")
		}
		if strings.Contains(got, "secret") || r.site != "hf" && r.header.Get("Authorization") != "" {
			t.Errorf("%s%s got %s", r.site, r.path, got)
		}
	}
	for _, site := range []string{"hf", "arxiv", "arxiv_api", "github"} {
		if sites[site] == 0 {
			t.Errorf("%s was not asked", site)
		}
	}
	if len(w.requests("arxiv", "/html/card")) == 0 {
		t.Error("the redirect to another site was not followed")
	}
	if n := len(stranger.requests("", "")); n != 0 {
		t.Errorf("the redirect to an unknown host was followed %d times", n)
	}
}

// TestNoCode ends in an honest verdict and a report.
func TestNoCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(paper{id: "2511.11111", version: "v1", title: "Theory Only", abstract: "We prove a bound of 42%.", body: "Nothing is run."})
	o := w.must(t, 0, "plan", "2511.11111")
	has(t, o.stdout, "none found", "nothing can be run")
	o = w.must(t, 0, "run", "2511.11111", "--yes")
	has(t, o.stdout, "Theory Only", "not checkable", "no code was found")
	has(t, w.must(t, 0, "results", "list").stdout, "2511.11111", "not_checkable")
	if o := w.run(nil, "run", "2511.11111", "--yes", "--quiet", "--fail-on", "not_checkable"); o.code != 3 {
		t.Errorf("--fail-on: exit %d", o.code)
	}
}

// TestCodeLinks tries the links in turn and says what became of each.
func TestCodeLinks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	good := w.repo("ada-example/good", smallPaper(0))
	w.repo("ada-example/newname", smallPaper(0))
	for _, way := range []string{"", "/info/refs?service=git-upload-pack", "/git-upload-pack"} {
		w.handle("github", "/ada-example/oldname"+way, func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "/ada-example/newname"+way, http.StatusMovedPermanently)
		})
	}
	refuse := func(name string, page, git int) {
		w.answer("github", "/ada-example/"+name, page, "text/html", "<html>Page not found</html>")
		w.answer("github", "/ada-example/"+name+"/info/refs?service=git-upload-pack", git, "text/plain", "Repository not found.")
	}
	refuse("deleted", 404, 404)
	refuse("private", 404, 401) // as GitHub does
	refuse("seized", 451, 451)
	refuse("pageonly", 200, 404) // the page is there, the repository is not
	for i, c := range []struct{ first, second, want, warning string }{
		{"deleted", "good", "good", "code_link_dead"},
		{"private", "good", "good", "code_link_dead"},
		{"seized", "good", "good", "code_link_dead"},
		{"pageonly", "good", "good", "code_link_dead"},
		{"oldname", "", "newname", "code_link_moved"},
		{"private", "", "", "code_link_dead"},
	} {
		id := fmt.Sprintf("2511.2000%d", i)
		body := "We go on."
		if c.second != "" {
			body = `Code and data are available at <a href="https://github.com/ada-example/` + c.second + `">https://github.com/ada-example/` + c.second + `</a>.`
		}
		w.publish(paper{id: id, version: "v1", title: "Links", body: body, abstract: "Our code is available at https://github.com/ada-example/" + c.first + "."})
		p := decode[planOf](t, w.must(t, 0, "plan", "--json", id).stdout)
		want := ""
		if c.want != "" {
			want = "https://github.com/ada-example/" + c.want
		}
		if p.Source.Repo != want || c.want == "good" && p.Source.Commit != good || !slices.Contains(p.codes(), c.warning) {
			t.Errorf("%s then %s: source %+v, warnings %+v", c.first, c.second, p.Source, p.Warnings)
		}
	}
	// Asked for by name it is the user's address that is wrong.
	for name, word := range map[string]string{"deleted": "not found", "private": "token", "seized": "taken down"} {
		o := w.must(t, 2, "plan", "https://github.com/ada-example/"+name)
		has(t, o.stderr, word, "github.com/ada-example/"+name)
	}
	has(t, w.must(t, 0, "plan", "https://github.com/ada-example/oldname", "--json").stdout, good)
}

// TestOddAnswers tells arXiv's refusals apart and never takes one for a paper.
func TestOddAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.queueLens(0)
	const atom = "application/atom+xml; charset=UTF-8"
	w.answer("arxiv_api", apiPath("2511.00404"), 200, atom, atomUnknown)
	odd := func(id, typ, body string) {
		for _, site := range []string{"arxiv_api", "arxiv"} {
			path := apiPath(id)
			if site == "arxiv" {
				path = "/abs/" + id
			}
			w.answer(site, path, 200, typ, body)
		}
	}
	odd("2511.00001", "text/plain", "Rate exceeded.")
	odd("2511.00002", "text/html", "<!DOCTYPE html><html><body>Down for maintenance \x1b[31mred</body></html>")
	odd("2511.00003", atom, strings.NewReplacer("<title>TITLE", "<title>Error", "http://arxiv.org/abs/IDVERSION", "http://arxiv.org/api/errors#start_must_be_non-negative",
		"ABSTRACT", "start must be non-negative").Replace(atomPage))
	for target, words := range map[string][]string{
		"2511.00404":    {"there is no paper 2511.00404", "check the id"},
		"2511.98765v99": {"the newest version is 2511.98765v2"},
		"2511.00001":    {"Rate exceeded", "wait"},
		"2511.00002":    {"web page", "try again later"},
		"2511.00003":    {"start must be non-negative", "try again later"},
		"2511.9876":     {"did you mean 2511.09876"},
	} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			o := w.must(t, 2, "plan", target)
			has(t, o.stderr, words...)
		})
	}
}

// TestMirrorOfTheWorld fills a mirror and works from it with all sites gone.
func TestMirrorOfTheWorld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.queueLens(0)
	w.lensModel()
	targets := []string{"2511.98765", modelID, "https://github.com/ada-example/queue_lens"}
	live := map[string]planOf{}
	for _, target := range targets {
		live[target] = decode[planOf](t, w.must(t, 0, "plan", "--json", target).stdout)
	}
	o := w.must(t, 0, append([]string{"mirror", "add", "--dir", "m"}, targets...)...)
	has(t, o.stdout, "added", "use it with")
	w.stop()
	for _, dir := range []string{"cache", "state"} {
		if err := exec.Command("chmod", "-R", "u+w", filepath.Join(w.home, dir)).Run(); err != nil && dir == "cache" {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(w.home, dir)); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range targets {
		p := decode[planOf](t, w.must(t, 0, "plan", "--json", "--mirror", "m", target).stdout)
		if p.Hash != live[target].Hash || p.Hash == "" {
			t.Errorf("%s: hash %s from the mirror, %s live", target, p.Hash, live[target].Hash)
		}
	}
	has(t, w.must(t, 0, "run", "--mirror", "m", "2511.98765", "--yes").stdout, "aligned", "93.4")
	o = w.must(t, 2, "plan", "--mirror", "m", "2511.99999")
	has(t, o.stderr, "the mirror does not hold", "mirror add")
}

// TestTwoAtOnce has two processes plan one target with one cold cache.
func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.queueLens(0)
	a, b := w.command("plan", "--json", "2511.98765"), w.command("plan", "--json", "2511.98765")
	outA, errA := w.start(a)
	outB, errB := w.start(b)
	first, second := w.finish(a, outA, errA), w.finish(b, outB, errB)
	if first.code != 0 || second.code != 0 || first.stdout != second.stdout {
		t.Errorf("%+v\n%+v", first, second)
	}
	for _, path := range []string{"/api/query", "/html/"} {
		if n := len(w.requests("", path)); n != 1 {
			t.Errorf("%s was asked for %d times", path, n)
		}
	}
}
