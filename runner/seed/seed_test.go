package seed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/suites/data"
)

var commit = strings.Repeat("a", 40)

// hub speaks the hub's protocol for one model and one data set.
type hub struct {
	*httptest.Server
	files    map[string][]byte // of the model
	weights  atomic.Int64      // bytes sent of them
	requests atomic.Int64
	gated    bool
	lie      bool // about the hash of the weights
}

func newHub(t testing.TB) *hub {
	h := &hub{files: map[string][]byte{"config.json": []byte(`{"model_type":"llama"}`), "pytorch_model.bin": []byte("old"), "original/x": []byte("x"), "sub/tokenizer.json": []byte("{}")}}
	w := make([]byte, 5<<20+17)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range w {
		w[i] = byte(r.Uint32())
	}
	h.files["model.safetensors"] = w
	h.Server = httptest.NewServer(http.HandlerFunc(h.serve))
	t.Cleanup(h.Close)
	return h
}

func (h *hub) serve(w http.ResponseWriter, r *http.Request) {
	h.requests.Add(1)
	base := "/org/tiny/resolve/" + commit + "/"
	switch {
	case h.gated:
		w.Header().Set("X-Error-Code", "GatedRepo")
		w.WriteHeader(http.StatusForbidden)
	case r.URL.Path == "/api/models/org/tiny/revision/"+commit:
		var list []map[string]any
		for name, b := range h.files {
			f := map[string]any{"rfilename": name, "size": len(b)}
			if name == "model.safetensors" {
				sum := sha256.Sum256(b)
				if h.lie {
					sum[0]++
				}
				f["lfs"] = map[string]any{"sha256": hex.EncodeToString(sum[:]), "size": len(b), "pointerSize": 134}
			}
			list = append(list, f)
		}
		json.NewEncoder(w).Encode(map[string]any{"id": "org/tiny", "sha": commit, "siblings": list})
	case r.URL.Path == "/datasets/org/set/resolve/"+commit+"/data/test.jsonl":
		w.Write([]byte(`{"q":"one"}` + "\n"))
	case strings.HasPrefix(r.URL.Path, base) && h.files[strings.TrimPrefix(r.URL.Path, base)] != nil:
		b := h.files[strings.TrimPrefix(r.URL.Path, base)]
		cw := &counting{ResponseWriter: w}
		http.ServeContent(cw, r, "f", time.Unix(1_790_000_000, 0), bytes.NewReader(b))
		if len(b) > 1<<20 {
			h.weights.Add(cw.n)
		}
	default:
		http.NotFound(w, r)
	}
}

type counting struct {
	http.ResponseWriter
	n int64
}

func (c *counting) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n += int64(n)
	return n, err
}

func (h *hub) config(t testing.TB, dir, who string) Config {
	t.Helper()
	c, err := fetch.New(fetch.Config{CacheDir: t.TempDir(), Endpoints: map[fetch.Site]string{fetch.HF: h.URL}, Limits: map[fetch.Site]fetch.Limit{fetch.HF: {Conns: 4}}})
	if err != nil {
		t.Fatal(err)
	}
	return Config{Dir: dir, Client: c, Who: who, Chunk: 1 << 20, Stale: 2 * time.Second}
}

var wants = []Want{{Kind: Model, Repo: "org/tiny", Commit: commit}, {Kind: Dataset, Repo: "org/set", Commit: commit, Files: []File{{Path: "data/test.jsonl"}}}}

// check reads the cache as the hub's tools do.
func (h *hub) check(t *testing.T, dir string) {
	t.Helper()
	snap := filepath.Join(Hub(dir), "models--org--tiny", "snapshots", commit)
	for _, name := range []string{"config.json", "model.safetensors", "sub/tokenizer.json"} {
		if b, err := os.ReadFile(filepath.Join(snap, name)); err != nil || !bytes.Equal(b, h.files[name]) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	for _, name := range []string{"pytorch_model.bin", "original"} {
		if _, err := os.Lstat(filepath.Join(snap, name)); err == nil {
			t.Errorf("%s was brought along", name)
		}
	}
	if b, err := os.ReadFile(filepath.Join(Hub(dir), "models--org--tiny", "refs", "main")); err != nil || string(b) != commit {
		t.Errorf("the ref is %q, %v", b, err)
	}
	f, err := data.New(data.Config{Cache: Hub(dir)}).Open(t.Context(), data.File{Repo: "org/set", Commit: commit, Path: "data/test.jsonl"})
	if err != nil || !f.Cached {
		t.Errorf("the data set: %+v, %v", f, err)
	}
	if left, _ := filepath.Glob(filepath.Join(Hub(dir), "*", "blobs", ".part*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if list, err := Missing(dir, wants); err != nil || len(list) != 0 {
		t.Errorf("missing: %v, %v", list, err)
	}
}

func TestEnsure(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	if err := Ensure(t.Context(), h.config(t, dir, "a"), wants); err != nil {
		t.Fatal(err)
	}
	h.check(t, dir)
	if n := h.weights.Load(); n != int64(len(h.files["model.safetensors"])) {
		t.Errorf("%d bytes of the weights were sent", n)
	}
	n := h.requests.Load()
	if err := Ensure(t.Context(), h.config(t, dir, "b"), wants); err != nil || h.requests.Load() != n {
		t.Errorf("again: %v, %d requests", err, h.requests.Load()-n)
	}
}

// TestKilledAtEveryStep: a seed that follows another goes on where it stood: no
// whole piece is downloaded twice, and nothing but a whole repository is marked.
func TestKilledAtEveryStep(t *testing.T) {
	for n := range 13 {
		h, dir := newHub(t), t.TempDir()
		c := h.config(t, dir, "killed")
		c.Stale = 40 * time.Millisecond
		at := 0
		c.Hook = func(string) {
			if at++; at > n {
				panic("killed")
			}
		}
		killed := func() (killed bool) {
			defer func() { killed = recover() != nil }()
			if err := Ensure(t.Context(), c, wants[:1]); err != nil {
				t.Error(err)
			}
			return false
		}()
		if list, _ := Missing(dir, wants[:1]); killed && len(list) == 0 && n < 10 {
			t.Errorf("killed at step %d, and yet nothing is missing", n)
		}
		next := h.config(t, dir, "next")
		next.Stale = 40 * time.Millisecond
		if err := Ensure(t.Context(), next, wants); err != nil {
			t.Fatal(err)
		}
		h.check(t, dir)
		if sent := h.weights.Load(); sent > int64(len(h.files["model.safetensors"])) {
			t.Errorf("killed at step %d: %d bytes of the weights were sent", n, sent)
		}
	}
}

// TestManyAtOnce: one downloads, the others wait.
func TestManyAtOnce(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	var wg sync.WaitGroup
	for i := range 4 {
		c := h.config(t, dir, fmt.Sprint("seed-", i))
		wg.Go(func() {
			if err := Ensure(t.Context(), c, wants); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	h.check(t, dir)
	if n := h.weights.Load(); n != int64(len(h.files["model.safetensors"])) {
		t.Errorf("%d bytes of the weights were sent", n)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "seeding")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestDamaged: what lies in the cache is believed only by its hash.
func TestDamaged(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	c := h.config(t, dir, "a")
	c.Hook = func(p string) {
		if p == "seed:chunk:after" {
			panic(p)
		}
	}
	func() {
		defer func() { _ = recover() }()
		_ = Ensure(t.Context(), c, wants[:1])
	}()
	parts, _ := filepath.Glob(filepath.Join(Hub(dir), "*", "blobs", ".part*"))
	if len(parts) != 1 {
		t.Fatalf("parts: %v", parts)
	}
	b, err := os.ReadFile(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	b[1000]++
	if err := os.WriteFile(parts[0], b, 0o644); err != nil {
		t.Fatal(err)
	}
	c = h.config(t, dir, "b")
	if err := Ensure(t.Context(), c, wants); err != nil {
		t.Fatal(err)
	}
	h.check(t, dir)
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		set  func(*hub)
		want []Want
		says string
	}{
		"gated":       {func(h *hub) { h.gated = true }, wants, "is gated"},
		"another":     {func(h *hub) { h.lie = true }, wants, "was announced"},
		"no such":     {func(*hub) {}, []Want{{Kind: Model, Repo: "org/none", Commit: commit}}, "the hub has no"},
		"a branch":    {func(*hub) {}, []Want{{Kind: Model, Repo: "org/tiny", Commit: "main"}}, "plan again"},
		"out of it":   {func(*hub) {}, []Want{{Kind: Model, Repo: "org/tiny", Commit: commit, Files: []File{{Path: "../../x"}}}}, "is no file of"},
		"listed evil": {func(h *hub) { h.files["../evil"] = []byte("x") }, wants, "is no file of"},
	} {
		h, dir := newHub(t), t.TempDir()
		c.set(h)
		err := Ensure(t.Context(), h.config(t, dir, "a"), c.want)
		var user interface{ UserError() string }
		if !errors.As(err, &user) || !strings.Contains(err.Error()+user.UserError(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if list, _ := filepath.Glob(filepath.Join(dir, "seeded", "*", "*")); len(list) > 0 {
			t.Errorf("%s: marked: %v", name, list)
		}
	}
}

func TestStopped(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	c := h.config(t, dir, "a")
	c.Hook = func(p string) {
		if p == "seed:chunk:after" {
			stop()
		}
	}
	if err := Ensure(ctx, c, wants); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := Ensure(t.Context(), h.config(t, dir, "b"), wants); err != nil {
		t.Fatal(err)
	}
	h.check(t, dir)
}
