package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/model"
)

// tinyConfig is a Llama of two layers that a few kilobytes hold.
const tinyConfig = `{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":64,"intermediate_size":128,"num_attention_heads":4,
"num_hidden_layers":2,"num_key_value_heads":2,"head_dim":16,"vocab_size":256,"max_position_embeddings":4096,"tie_word_embeddings":false,"torch_dtype":"bfloat16"%s}`

const tinyCard = `---
license: apache-2.0
base_model:
- ada-example/tiny
---
# Tiny NVFP4

This model was obtained by quantizing the weights and activations of Tiny to NVFP4 data type. Only the weights and activations of the
linear operators within transformer blocks are quantized. This optimization reduces the number of bits per parameter from 16 to 4,
reducing the disk size and GPU memory requirements by approximately 3.5x. The context length is up to 4K tokens.

` + "```sh\nvllm serve ada-example/tiny-NVFP4 \\\n  --kv-cache-dtype fp8 --reasoning-parser qwen3\n```\n"

// tensorFile collects the tensors of a safetensors file.
type tensorFile struct {
	head map[string]any
	data []byte
}

func (f *tensorFile) add(name, dtype string, b []byte, shape ...int) {
	if f.head == nil {
		f.head = map[string]any{}
	}
	if shape == nil {
		shape = []int{}
	}
	f.head[name] = map[string]any{"dtype": dtype, "shape": shape, "data_offsets": []int{len(f.data), len(f.data) + len(b)}}
	f.data = append(f.data, b...)
}

func (f *tensorFile) encode(t *testing.T) []byte {
	t.Helper()
	h, err := json.Marshal(f.head)
	if err != nil {
		t.Fatal(err)
	}
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(h))), h...), f.data...)
}

// tinyModel makes a base in two files with an index, and its NVFP4 in one.
func tinyModel(t *testing.T) (base, got map[string][]byte) {
	t.Helper()
	rng := rand.New(rand.NewPCG(7, 7))
	var first, second, packed tensorFile
	index := map[string]string{}
	put := func(name string, quantise bool, rows, cols int) {
		w := make([]float32, rows*cols)
		var b []byte
		for i := range w {
			w[i] = model.DecodeBF16(model.EncodeBF16(float32(rng.NormFloat64() * 0.02)))
			b = binary.LittleEndian.AppendUint16(b, model.EncodeBF16(w[i]))
		}
		f, file := &first, "model-00001-of-00002.safetensors"
		if strings.Contains(name, "layers.1") {
			f, file = &second, "model-00002-of-00002.safetensors"
		}
		shape := []int{rows, cols}
		if cols == 1 {
			shape = shape[:1]
		}
		f.add(name+".weight", "BF16", b, shape...)
		index[name+".weight"] = file
		if !quantise {
			packed.add(name+".weight", "BF16", b, shape...)
			return
		}
		q, err := model.QuantizeNVFP4(w, rows, cols, false)
		if err != nil {
			t.Fatal(err)
		}
		packed.add(name+".weight", "U8", q.Packed, rows, cols/2)
		packed.add(name+".weight_scale", "F8_E4M3", q.Scales, rows, cols/16)
		packed.add(name+".weight_scale_2", "F32", binary.LittleEndian.AppendUint32(nil, math.Float32bits(q.Global)))
		packed.add(name+".input_scale", "F32", make([]byte, 4))
	}
	put("model.embed_tokens", false, 256, 64)
	put("lm_head", false, 256, 64)
	put("model.norm", false, 64, 1)
	for i := range 2 {
		p := fmt.Sprintf("model.layers.%d.", i)
		put(p+"self_attn.q_proj", true, 64, 64)
		put(p+"self_attn.k_proj", true, 32, 64)
		put(p+"self_attn.v_proj", true, 32, 64)
		put(p+"self_attn.o_proj", true, 64, 64)
		put(p+"mlp.gate_proj", true, 128, 64)
		put(p+"mlp.up_proj", true, 128, 64)
		put(p+"mlp.down_proj", true, 64, 128)
		put(p+"input_layernorm", false, 64, 1)
		put(p+"post_attention_layernorm", false, 64, 1)
	}
	list, err := json.Marshal(map[string]any{"metadata": map[string]any{}, "weight_map": index})
	if err != nil {
		t.Fatal(err)
	}
	base = map[string][]byte{
		"config.json": fmt.Appendf(nil, tinyConfig, ""), "model.safetensors.index.json": list,
		"model-00001-of-00002.safetensors": first.encode(t), "model-00002-of-00002.safetensors": second.encode(t),
	}
	got = map[string][]byte{
		"config.json":            fmt.Appendf(nil, tinyConfig, `,"quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4","ignore":["lm_head"]}`),
		"model.safetensors":      packed.encode(t),
		"README.md":              []byte(tinyCard),
		"generation_config.json": []byte(`{"temperature":0.6,"top_p":0.95}`),
		"LICENSE":                []byte("                                 Apache License\n                           Version 2.0, January 2004\n"),
	}
	return base, got
}

const tinySHA = "89abcdef0123456789abcdef0123456789abcdef"

// onHub puts a model on the hub, whose files of weights answer ranges.
func (w *world) onHub(id string, files map[string][]byte, total int) {
	siblings := []map[string]any{}
	for _, name := range sortedNames(files) {
		siblings = append(siblings, map[string]any{"rfilename": name, "size": len(files[name])})
		w.handle("hf", "/"+id+"/resolve/"+tinySHA+"/"+name, func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("Etag", `"`+name+`"`)
			http.ServeContent(rw, r, name, time.Time{}, bytes.NewReader(files[name]))
		})
	}
	info, _ := json.Marshal(map[string]any{
		"id": id, "sha": tinySHA, "gated": false, "cardData": map[string]any{"license": "apache-2.0", "base_model": []string{"ada-example/tiny"}},
		"safetensors": map[string]any{"parameters": map[string]int{"U8": total}, "total": total}, "siblings": siblings,
	})
	for _, rev := range []string{"", "/revision/" + tinySHA} {
		w.answer("hf", "/api/models/"+id+rev+"?blobs=true", 200, "application/json", string(info))
	}
}

func sortedNames(files map[string][]byte) (names []string) {
	for name := range files {
		names = append(names, name)
	}
	// The order of siblings means nothing; a stable one makes failures alike.
	for i := range names {
		for j := i + 1; j < len(names); j++ {
			if names[j] < names[i] {
				names[i], names[j] = names[j], names[i]
			}
		}
	}
	return names
}

func (w *world) folderOf(name string, files map[string][]byte) string {
	for file, b := range files {
		w.write(name+"/"+file, string(b))
	}
	return filepath.Join(w.home, name)
}

// inspected is the part of the report that the tests look at.
type inspected struct {
	Model, Revision, From string
	Facts                 []struct {
		Name, Kind, Source string
		Value              any
	}
	Groups []struct {
		Part, Weights, Math string
		Modules, Params     int64
	}
	Claims []struct {
		Kind, Source, Verdict, Reported, Measured, Reason string
	}
	Problems []struct{ Code, Where string }
	Absent   []string
	Weights  *struct {
		Verdicts map[string]int
		Layers   []struct {
			Name, Verdict string
			Error         *struct{ Relative, Rounding float64 }
		}
		RunID string `json:"run_id"`
	}
	Traffic struct{ Requests, Bytes int64 }
}

func (r *inspected) claim(kind, source string) string {
	for _, c := range r.Claims {
		if c.Kind == kind && strings.HasPrefix(c.Source, source) {
			return c.Verdict
		}
	}
	return "none"
}

// tinyParams are the parameters of tinyConfig: embedding, head, two layers, norms.
const tinyParams = 2*256*64 + 2*(2*64*64+2*32*64+3*128*64+2*64) + 64

func TestInspectOnTheHub(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base, got := tinyModel(t)
	w.onHub("ada-example/tiny-NVFP4", got, 60000)
	w.onHub("ada-example/tiny", base, tinyParams)
	o := w.must(t, 0, "inspect", "ada-example/tiny-NVFP4", "--json")
	r := decode[inspected](t, o.stdout)
	if r.Revision != tinySHA || r.From != "hub" || len(r.Problems) != 0 {
		t.Errorf("%+v", r)
	}
	for _, f := range r.Facts {
		if f.Name == "parameters_total" && (f.Value != float64(tinyParams) || f.Kind != "measured") {
			t.Errorf("%+v, want %d", f, tinyParams)
		}
		if f.Kind == "" || f.Source == "" {
			t.Errorf("a fact without kind or source: %+v", f)
		}
	}
	for kind, want := range map[string]string{
		"format": "aligned", "quantised_layers": "aligned", "context": "aligned", "licence": "aligned", "base_model": "not_attempted",
		"memory_reduction": "partially_aligned", "bits_per_parameter": "partially_aligned",
	} {
		if v := r.claim(kind, "README.md"); v != want {
			t.Errorf("%s is %s, want %s\n%s", kind, v, want, o.stdout)
		}
	}
	if v := r.claim("parameters", "hub"); v != "inconclusive" {
		t.Errorf("the hub's count of packed bytes is %s", v)
	}
	weights := 0
	for _, s := range w.requests("hf", "/ada-example/tiny-NVFP4/resolve/") {
		if strings.HasSuffix(s.path, ".safetensors") {
			weights++
			if s.header.Get("Range") == "" {
				t.Error("a file of weights was asked for as a whole")
			}
		}
	}
	if weights == 0 || weights > 2 {
		t.Errorf("%d requests for the file of weights", weights)
	}
	text := w.must(t, 0, "inspect", "https://huggingface.co/ada-example/tiny-NVFP4", "--sku", "h100,b200").stdout
	has(t, text, "nvfp4 1x16", "w4a4", "on h100: w4a16 by marlin", "partially aligned", "--reasoning-parser qwen3", "temperature", "apache-2.0")

	// The whole comparison over the network.
	o = w.must(t, 0, "inspect", "ada-example/tiny-NVFP4", "--against", "ada-example/tiny", "--json")
	r = decode[inspected](t, o.stdout)
	if r.Weights == nil || r.Weights.Verdicts["ok"] != len(r.Weights.Layers) || len(r.Weights.Layers) != 21 || r.claim("base_model", "README.md") != "aligned" {
		t.Errorf("%s", o.stdout)
	}
	if n := len(w.requests("hf", "/ada-example/tiny-NVFP4/resolve/"+tinySHA+"/model.safetensors")) - weights; n > 2 {
		t.Errorf("%d requests for weights that fit one", n)
	}

	// And from a mirror, which holds the headers and no weights.
	live := w.must(t, 0, "inspect", "ada-example/tiny-NVFP4").stdout
	has(t, w.must(t, 0, "mirror", "add", "--dir", "m", "ada-example/tiny-NVFP4").stdout, "headers of 1 files of weights")
	w.stop()
	if text := w.must(t, 0, "inspect", "--mirror", "m", "ada-example/tiny-NVFP4").stdout; text != live {
		t.Errorf("from the mirror:\n%s\nlive:\n%s", text, live)
	}
	has(t, w.must(t, 2, "inspect", "--mirror", "m", "--weights", "ada-example/tiny-NVFP4").stderr, "mirror")
}

func TestInspectRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, got := tinyModel(t)
	w.onHub("ada-example/gated", got, 1)
	w.handle("hf", "/ada-example/gated/resolve/"+tinySHA+"/config.json", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("X-Error-Code", "GatedRepo")
		rw.WriteHeader(http.StatusUnauthorized)
	})
	has(t, w.must(t, 2, "inspect", "ada-example/gated").stderr, "gated", "accept the conditions", "HF_TOKEN")
	w.onHub("ada-example/half", got, 1)
	w.handle("hf", "/ada-example/half/resolve/"+tinySHA+"/model.safetensors", func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusForbidden)
	})
	has(t, w.must(t, 2, "inspect", "ada-example/half").stderr, "does not hand out model.safetensors", "HF_TOKEN")
	w.onHub("ada-example/pickle", map[string][]byte{"config.json": got["config.json"], "pytorch_model.bin": []byte("PK\x03\x04")}, 1)
	has(t, w.must(t, 0, "inspect", "ada-example/pickle").stdout, "pickles", "never opened")
	if n := len(w.requests("hf", "/ada-example/pickle/resolve/"+tinySHA+"/pytorch")); n != 0 {
		t.Error("the pickle was asked for")
	}
	has(t, w.must(t, 2, "inspect", "ada-example/pickle", "--weights").stderr, "cannot be read", "pickles")
	w.onHub("ada-example/liar", got, 1)
	w.handle("hf", "/ada-example/liar/resolve/"+tinySHA+"/model.safetensors", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Range", "bytes 0-99/7")
		rw.WriteHeader(http.StatusPartialContent)
		_, _ = rw.Write(make([]byte, 100))
	})
	has(t, w.must(t, 2, "inspect", "ada-example/liar").stderr, "labelled", "HF_ENDPOINT")
	has(t, w.must(t, 2, "inspect", "ada-example/nowhere").stderr, "ada-example/nowhere")
}

// TestInspectFindsDamage breaks one weight of a folder and has it named, drawn
// and committed.
func TestInspectFindsDamage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base, got := tinyModel(t)
	b, g := w.folderOf("base", base), w.folderOf("got", got)
	o := w.must(t, 0, "inspect", g, "--against", b, "--fail-on", "broken,suspicious,problem")
	has(t, o.stdout, "all 21 weights are sound")
	const hit = "model.layers.1.mlp.up_proj"
	h, err := model.ReadHeader(bytes.NewReader(got["model.safetensors"]), int64(len(got["model.safetensors"])), model.HeaderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range h.Tensors {
		if x.Name == hit+".weight_scale_2" { // inverted
			s := got["model.safetensors"][x.Begin:]
			binary.LittleEndian.PutUint32(s, math.Float32bits(1/math.Float32frombits(binary.LittleEndian.Uint32(s))))
		}
	}
	g = w.folderOf("got", got)
	o = w.must(t, 3, "inspect", g, "--weights", "--fail-on", "broken")
	has(t, o.stdout, hit, "it may be the inverse", "1 of 21 weights are broken")
	o = w.must(t, 0, "inspect", g, "--against", b, "--plot", "layers.svg", "--save", "--json")
	r := decode[inspected](t, o.stdout)
	if first := r.Weights.Layers[0]; first.Name != hit || first.Verdict != "broken" || r.Weights.Verdicts["ok"] != 20 {
		t.Errorf("%+v", r.Weights)
	}
	svg, err := os.ReadFile(filepath.Join(w.home, "layers.svg"))
	if err != nil || !bytes.Contains(svg, []byte("<svg")) || !bytes.Contains(svg, []byte(hit)) {
		t.Errorf("the plot does not name %s: %v", hit, err)
	}
	has(t, w.must(t, 0, "results", "verify").stdout, "clean")
	has(t, w.must(t, 0, "results", "list").stdout, r.Weights.RunID)
	// A snapshot in the hub's own cache knows its name and commit.
	snapshot := w.folderOf("hub/models--ada-example--tiny/snapshots/"+tinySHA, base)
	if r := decode[inspected](t, w.must(t, 0, "inspect", snapshot, "--json").stdout); r.Model != "ada-example/tiny" || r.Revision != tinySHA || r.From != "folder" {
		t.Errorf("%+v", r)
	}
	// Only a part of it.
	o = w.must(t, 0, "inspect", g, "--against", b, "--layers", `layers\.0\.`, "--sample", "2", "--json")
	if r := decode[inspected](t, o.stdout); len(r.Weights.Layers) != 9 || r.Weights.Verdicts["ok"] != 9 {
		t.Errorf("%+v", r.Weights)
	}
}

// TestInspectGoesOn kills a sweep at durable steps in turn; the next one goes on
// and gives what an undisturbed one gives.
func TestInspectGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base, got := tinyModel(t)
	b, g := w.folderOf("base", base), w.folderOf("got", got)
	args := []string{"inspect", g, "--against", b, "--json"}
	want := w.must(t, 0, args...).stdout
	journal := filepath.Join(w.home, "state", "repromill", "inspect", "*.jsonl")
	if left, _ := filepath.Glob(journal); len(left) != 0 {
		t.Errorf("%v is left after the end", left)
	}
	for _, at := range []int{1, 2, 3, 20, 41, 42} {
		if o := w.run([]string{fmt.Sprintf("REPROMILL_FAIL_AT=%d", at)}, args...); o.code != -1 {
			t.Fatalf("not killed at step %d: exit %d\n%s", at, o.code, o.stderr)
		}
		left, _ := filepath.Glob(journal)
		if len(left) != 1 {
			t.Fatalf("the journals are %v", left)
		}
		if at == 3 { // and the machine cut the last line
			text, err := os.ReadFile(left[0])
			if err != nil || os.WriteFile(left[0], append(text, "12345678 {\"name"...), 0o600) != nil {
				t.Fatal(err)
			}
		}
		o := w.run(nil, append(args, "--quiet")...)
		if o.code != 0 || o.stdout != want {
			t.Errorf("after step %d: exit %d\n%s\nwant\n%s", at, o.code, o.stdout, want)
		}
	}
}

// TestInspectIsInterrupted sends Ctrl-C while weights are on their way.
func TestInspectIsInterrupted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, got := tinyModel(t)
	w.onHub("ada-example/tiny-NVFP4", got, 1)
	reached, release := make(chan bool, 1), make(chan bool)
	var n atomic.Int64
	w.handle("hf", "/ada-example/tiny-NVFP4/resolve/"+tinySHA+"/model.safetensors", func(rw http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 2 { // after the header
			reached <- true
			<-release
		}
		rw.Header().Set("Etag", `"x"`)
		http.ServeContent(rw, r, "x", time.Time{}, bytes.NewReader(got["model.safetensors"]))
	})
	cmd := w.command("inspect", "ada-example/tiny-NVFP4", "--weights")
	stdout, stderr := w.start(cmd)
	<-reached
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	o := w.finish(cmd, stdout, stderr)
	close(release)
	if o.code != 130 || !strings.Contains(o.stderr, "goes on where this one was") {
		t.Errorf("exit %d\n%s", o.code, o.stderr)
	}
	has(t, w.must(t, 0, "inspect", "ada-example/tiny-NVFP4", "--weights").stdout, "all 21 weights are sound")
}
