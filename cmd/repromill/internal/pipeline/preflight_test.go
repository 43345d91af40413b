package pipeline

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner"
)

// hub speaks the protocol of the hub's API and files, as far as a look needs
// it, with the answers that the real one gives.
func hub(t *testing.T) *httptest.Server {
	t.Helper()
	answer := func(w http.ResponseWriter, status int, code, message string) {
		if code != "" {
			w.Header().Set("X-Error-Code", code)
			w.Header().Set("X-Error-Message", message)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":%q}`, message)
	}
	model := func(gated string) string {
		return `{"_id":"621ffdc036468d709f17434d","id":"a/b","private":false,"gated":` + gated + `,"disabled":false,"siblings":[{"rfilename":"config.json"}],"usedStorage":4096}`
	}
	granted := func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer good" }
	mux := http.NewServeMux()
	mux.HandleFunc("/api/models/", func(w http.ResponseWriter, r *http.Request) {
		switch id := strings.TrimPrefix(r.URL.Path, "/api/models/"); id {
		case "lab/open":
			fmt.Fprint(w, model("false"))
		case "gpt2":
			fmt.Fprint(w, model("false"))
		case "lab/gated":
			fmt.Fprint(w, model(`"manual"`))
		case "lab/gated/auth-check":
			switch {
			case granted(r):
				fmt.Fprint(w, `{}`)
			case r.Header.Get("Authorization") != "":
				answer(w, http.StatusForbidden, "GatedRepo", "Access to model lab/gated is restricted and you are not in the authorized list.")
			default:
				answer(w, http.StatusUnauthorized, "GatedRepo", "Access to model lab/gated is restricted. You must have access to it and be authenticated to access it.")
			}
		case "lab/moved":
			http.Redirect(w, r, "/api/models/lab/open", http.StatusTemporaryRedirect)
		case "lab/disabled":
			fmt.Fprint(w, strings.Replace(model("false"), `"disabled":false`, `"disabled":true`, 1))
		case "lab/broken":
			fmt.Fprint(w, `<html>`)
		default: // what is not there and what is private look alike
			answer(w, http.StatusUnauthorized, "RepoNotFound", "Repository not found")
		}
	})
	mux.HandleFunc("/api/datasets/lab/data", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"id":"lab/data","gated":false}`) })
	mux.HandleFunc("/lab/open/resolve/main/w.bin", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Linked-Size", "777")
		http.Redirect(w, r, "/cdn/w.bin", http.StatusFound)
	})
	mux.HandleFunc("/cdn/w.bin", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("Content-Range", "bytes 0-0/777")
		w.WriteHeader(http.StatusPartialContent)
		fmt.Fprint(w, "x")
	})
	mux.HandleFunc("/lab/gated/resolve/main/w.bin", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusForbidden, "GatedRepo", "ask for access")
	})
	mux.HandleFunc("/lab/open/resolve/main/none.bin", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusNotFound, "EntryNotFound", "Entry not found")
	})
	mux.HandleFunc("/lab/page", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login?next=x", http.StatusFound) })
	mux.HandleFunc("/busy/file/x/y", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("/login", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "who are you") })
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

func looking(t *testing.T, srv *httptest.Server, token string) *Pipeline {
	t.Helper()
	c, err := fetch.New(fetch.Config{
		CacheDir: t.TempDir(), HFToken: token, Endpoints: map[fetch.Site]string{fetch.HF: srv.URL}, Limits: map[fetch.Site]fetch.Limit{fetch.HF: {Conns: 4}},
		Timeouts: fetch.Timeouts{Connect: 20 * time.Second, Header: 20 * time.Second}, Retry: fetch.Retry{Attempts: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &Pipeline{Client: c, Now: func() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC) }}
}

func needing(urls ...string) *spec.Plan {
	p := &spec.Plan{Environment: spec.Environment{Manager: "pip"}, Claims: []spec.Claim{}, Runs: []spec.Run{
		{ID: "minimal", Kind: "minimal", Route: "eval_checkpoint", Status: "auto", Selected: true, Argv: []string{"x"}},
		{ID: "full", Kind: "full", Route: "eval_checkpoint", Status: "auto", Argv: []string{"wget", "https://huggingface.co/never/asked"}},
	}}
	for _, u := range urls {
		p.Runs[0].Assets = append(p.Runs[0].Assets, spec.Asset{Kind: "checkpoint", Name: u, URL: u, Access: "auto"})
	}
	p.Seal()
	return p
}

func quiet(string, runner.EventKind, any) {}

func TestPreflight(t *testing.T) {
	srv := hub(t)
	for _, c := range []struct {
		token, url string
		status     string
		http       int
		bytes      int64
		reason     string
	}{
		{"", "https://huggingface.co/lab/open", "ok", 200, 4096, ""},
		{"", "https://huggingface.co/gpt2", "ok", 200, 4096, ""},
		{"", "https://huggingface.co/lab/moved", "ok", 200, 4096, ""},
		{"", "https://huggingface.co/lab/open/tree/main", "ok", 200, 4096, ""},
		{"", "https://huggingface.co/datasets/lab/data", "ok", 200, 0, ""},
		{"", "https://huggingface.co/datasets/lab/none", "missing", 404, 0, "404"},
		{"", "https://huggingface.co/lab/gated", "gated", 401, 4096, "must have access"},
		{"bad", "https://huggingface.co/lab/gated", "gated", 403, 4096, "not in the authorized list"},
		{"good", "https://huggingface.co/lab/gated", "ok", 200, 4096, "conditions are accepted"},
		{"", "https://huggingface.co/lab/none", "missing", 401, 0, "not found"},
		{"", "https://huggingface.co/lab/disabled", "missing", 200, 4096, "disabled"},
		{"", "https://huggingface.co/lab/broken", "unreachable", 200, 0, "cannot be read"},
		{"", "https://huggingface.co/lab/open/resolve/main/w.bin", "ok", 206, 777, ""},
		{"", "https://huggingface.co/lab/open/blob/main/w.bin", "ok", 206, 777, ""},
		{"", "https://huggingface.co/lab/gated/resolve/main/w.bin", "gated", 403, 0, "ask for access"},
		{"", "https://huggingface.co/lab/open/resolve/main/none.bin", "missing", 404, 0, "Entry not found"},
		{"", "https://huggingface.co/busy/file/x/y", "unreachable", 503, 0, "503"},
		{"", "https://127.0.0.1/weights.pth", "not_checked", 0, 0, "address"},
		{"", "http://files.example/weights.pth", "not_checked", 0, 0, "only https"},
	} {
		p := needing(c.url)
		before := p.Hash
		if err := looking(t, srv, c.token).preflight(t.Context(), p, quiet); err != nil {
			t.Fatal(err)
		}
		f := p.Preflight[0]
		if f.Status != c.status || f.HTTPStatus != c.http || f.Bytes != c.bytes || !strings.Contains(f.Reason, c.reason) {
			t.Errorf("%s with token %q: %+v, want %+v", c.url, c.token, f, c)
		}
		if checked := f.CheckedAt != nil; checked != (f.Status != "not_checked") || checked && !f.CheckedAt.Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)) {
			t.Errorf("%s: checked at %v", c.url, f.CheckedAt)
		}
		r := p.Runs[0]
		want := map[string]string{"gated": "gated", "missing": "manual_data"}[c.status]
		if want == "" {
			want = "auto"
		}
		if r.Status != want || (want != "auto") != (len(r.Needs) == 1) {
			t.Errorf("%s: the run is %s with %+v", c.url, r.Status, r.Needs)
		}
		if p.ComputeHash() != before {
			t.Errorf("%s: looking changes the hash", c.url)
		}
		if err := p.Validate(); err != nil {
			t.Error(err)
		}
		if len(p.Preflight) != 1 {
			t.Errorf("what no chosen run needs is looked at: %+v", p.Preflight)
		}
	}
}

// TestNeeded finds the addresses wherever a run or the environment names them.
func TestNeeded(t *testing.T) {
	p := needing()
	r := &p.Runs[0]
	r.Assets = []spec.Asset{
		{Kind: "dataset", Name: "what load_dataset fetches", Access: "auto"}, {Kind: "checkpoint", Name: "in.pth", Access: "in_repo"},
		{Kind: "checkpoint", Name: "w.pth", URL: "https://a.example/w.pth", Access: "auto"},
	}
	r.Argv = []string{"x", "--resume", "https://a.example/w.pth", "--other=https://b.example/y?z=1"}
	r.Setup = []spec.Step{
		{Argv: []string{"wget", "-O", "d", "https://c.example/d.zip"}}, {Argv: []string{"hf", "download", "--repo-type", "dataset", "lab/data", "--local-dir", "x/y"}},
		{Argv: []string{"huggingface-cli", "download", "lab/open"}},
	}
	p.Bindings = []spec.Binding{{Kind: "checkpoint", Name: "v", URL: "https://d.example/v.pth", Runs: []string{"minimal"}}, {Kind: "checkpoint", Name: "u", URL: "https://e.example/u", Runs: []string{"full"}}}
	p.Environment.Indexes = []spec.Index{{URL: "https://wheels.example/simple", Kind: "index"}, {URL: "conda-forge", Kind: "channel"}}
	p.Environment.Requirements = []spec.Requirement{{Spec: "x @ git+https://github.com/lab/x.git@main#egg=x"}, {Spec: "y @ https://f.example/y-1.0.whl"}, {Spec: "numpy"}}
	var got []string
	for _, f := range needed(p) {
		got = append(got, f.Name+" "+f.URL)
	}
	want := []string{
		"what load_dataset fetches ", "w.pth https://a.example/w.pth", "lab/data https://huggingface.co/datasets/lab/data", "lab/open https://huggingface.co/lab/open",
		"y https://b.example/y?z=1", "d.zip https://c.example/d.zip", "v https://d.example/v.pth", "packages https://wheels.example/simple",
		"x https://github.com/lab/x", "y-1.0.whl https://f.example/y-1.0.whl",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	// Nothing is selected: the minimal run is what would be.
	p.Runs[0].Selected = false
	if n := len(needed(p)); n != len(want) {
		t.Errorf("%d addresses of a minimal run that is not selected", n)
	}
}

// TestPreflightOffline: with a mirror nothing is asked, and the plan says so.
func TestPreflightOffline(t *testing.T) {
	c, err := fetch.New(fetch.Config{Mirror: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	p := needing("https://huggingface.co/lab/open", "https://a.example/x")
	if err := (&Pipeline{Client: c}).preflight(t.Context(), p, quiet); err != nil {
		t.Fatal(err)
	}
	for _, f := range p.Preflight {
		if f.Status != "not_checked" || !strings.Contains(f.Reason, "offline mirror") || f.CheckedAt != nil {
			t.Errorf("%+v", f)
		}
	}
	if p.Runs[0].Status != "auto" {
		t.Error("what was not looked at counts against the run")
	}
}

// TestApply does everything that a user can ask, in one go.
func TestApply(t *testing.T) {
	p := needing("https://huggingface.co/lab/open")
	p.Runs[0].Argv, p.Runs[0].Placeholders, p.Runs[0].Seeding = []string{"x", "N", "--seed", "1"}, []string{"N"}, &spec.Seeding{By: "flag", Name: "--seed"}
	p.Environment.SKUs = map[string]spec.SKUFit{"b200": {Status: "ok"}, "h100": {Status: "ok"}}
	told := 0
	w := runner.Wishes{Bind: []spec.Binding{{Kind: "set", Name: "N", Value: "4"}}, Seeds: 3, SKU: "b200", Preflight: true}
	err := looking(t, hub(t), "").Apply(t.Context(), p, w, func(_ string, k runner.EventKind, _ any) {
		if k == runner.Progress {
			told++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if p.Runs[0].Argv[1] != "4" || len(p.Runs[0].Seeds) != 3 || p.Environment.SKU != "b200" || p.Preflight[0].Status != "ok" || told != 1 || p.Hash != p.ComputeHash() {
		b, _ := json.Marshal(p)
		t.Errorf("%s", b)
	}
	if err := looking(t, hub(t), "").Apply(t.Context(), p, runner.Wishes{SKU: "h100"}, quiet); err == nil {
		t.Error("a GPU model that the plan no longer knows is taken")
	}
}
