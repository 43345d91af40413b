package web

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/repromill/repromill/runner/store"
)

// nights is a schedule of one series, whose second night is missing.
type nights struct{}

func (nights) Nights(context.Context) (Grid, error) {
	first, last := 101.5, 99.25
	return Grid{Schedule: "fleet: 0 2 * * * UTC", Night: time.Date(2026, 11, 21, 2, 0, 0, 0, time.UTC), Columns: []string{"h100-sxm"}, Missing: []time.Time{time.Date(2026, 11, 20, 2, 0, 0, 0, time.UTC)},
		Rows: []GridRow{{Name: "mmlu-pro score", Cells: []GridCell{{Verdict: "no_change", Text: "−2.2 %", History: []*float64{&first, nil, &last}}}}}}, nil
}

// A night that is missing is null, on a page and for programs.
func TestNightly(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Nightly = nights{} })
	w.get("/v1/nightly").want(t, 200, `"history":[101.5,null,99.25]`, `"missing":["2026-11-20T02:00:00Z"]`)
	w.get("/nightly").want(t, 200, "mmlu-pro score", "<svg")
	newWorld(t, nil).get("/v1/nightly").want(t, 200, `{"grid":null}`)
}

// TestTheDocumentIsTrue asks every route of the OpenAPI document and holds the
// answers to the shapes that it states.
func TestTheDocumentIsTrue(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Nightly = nights{} })
	doc := w.get("/v1/openapi.json")
	doc.want(t, 200, `"openapi":"3.1.0"`)
	parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(doc.body))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	if err := compiler.AddResource("doc.json", parsed); err != nil {
		t.Fatal(err)
	}
	open := w.submit() // stays planned
	w.wait(open, store.Planned)
	doomed := w.submit()
	w.wait(doomed, store.Planned)
	w.plans.mu.Lock()
	w.plans.fail = http.ErrBodyNotAllowed
	w.plans.mu.Unlock()
	failed := w.submit()
	w.wait(failed, store.Failed)
	w.plans.mu.Lock()
	w.plans.fail = nil
	w.plans.mu.Unlock()
	w.open()
	done := w.submit()
	w.wait(done, store.Planned)

	asked := map[string]bool{}
	check := func(method, pattern, path, body string, want int, headers ...string) {
		t.Helper()
		asked[method+" "+pattern] = true
		if method == http.MethodPost {
			headers = append(headers, "Content-Type", "application/json")
		}
		a := w.ask(method, path, body, headers...)
		if a.status != want {
			t.Errorf("%s %s: %d, want %d: %.300s", method, path, a.status, want, a.body)
			return
		}
		kind, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
		var status string
		at := "doc.json#/paths/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(pattern) + "/" + strings.ToLower(method) + "/responses/"
		switch {
		case want >= 400 && want != 503:
			status = "default"
		default:
			b, _ := json.Marshal(want)
			status = string(b)
		}
		if kind != "application/json" && kind != "application/problem+json" {
			if !strings.Contains(doc.body, kind) {
				t.Errorf("%s %s: %s is not documented", method, path, kind)
			}
			return
		}
		schema, err := compiler.Compile(at + status + "/content/" + strings.ReplaceAll(kind, "/", "~1") + "/schema")
		if err != nil {
			t.Errorf("%s %s answers %d %s, which the document lacks: %v", method, path, want, kind, err)
			return
		}
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(a.body))
		if err != nil {
			t.Errorf("%s %s: %v", method, path, err)
			return
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s %s: %v\n%.600s", method, path, err, a.body)
		}
	}
	run := "/v1/runs/{id}"
	check("POST", "/v1/runs", "/v1/runs", `{"target":"2604.08075"}`, 201, "Idempotency-Key", "k")
	check("POST", "/v1/runs", "/v1/runs", `{"target":"2604.08075"}`, 200, "Idempotency-Key", "k")
	check("POST", "/v1/runs", "/v1/runs", `{"target":"/etc"}`, 422)
	check("POST", "/v1/runs", "/v1/runs", `nonsense`, 400)
	check("POST", run+"/approve", "/v1/runs/"+done+"/approve", "", 200)
	w.wait(done, store.Done)
	check("POST", run+"/cancel", "/v1/runs/"+doomed+"/cancel", "", 200)
	check("POST", run+"/retry", "/v1/runs/"+failed+"/retry", "", 200)
	check("POST", run+"/retry", "/v1/runs/"+done+"/retry", "", 409)
	check("GET", "/v1/runs", "/v1/runs?limit=2", "", 200)
	check("GET", "/v1/runs", "/v1/runs?limit=0", "", 400)
	check("GET", "/v1/runs", "/v1/runs?state=dreaming", "", 400)
	for _, id := range []string{open, done, doomed, failed} {
		check("GET", run, "/v1/runs/"+id, "", 200)
		check("GET", run+"/events", "/v1/runs/"+id+"/events?limit=3", "", 200)
		check("GET", run+"/log", "/v1/runs/"+id+"/log?from=-1", "", 200)
	}
	check("GET", run, "/v1/runs/00000000000000000000000000", "", 404)
	check("GET", run+"/events", "/v1/runs/"+done+"/events", "", 200, "Accept", "text/event-stream")
	check("GET", run+"/plan", "/v1/runs/"+done+"/plan", "", 200)
	check("GET", run+"/report", "/v1/runs/"+done+"/report", "", 200)
	check("GET", run+"/report", "/v1/runs/"+open+"/report", "", 404)
	check("GET", run+"/bundle", "/v1/runs/"+done+"/bundle", "", 200)
	check("GET", run+"/bundle", "/v1/runs/"+open+"/bundle", "", 404)
	check("GET", "/v1/target", "/v1/target?target=2604.08075v1", "", 200)
	check("GET", "/v1/target", "/v1/target?target=%00", "", 422)
	for _, p := range []string{"/v1/skus", "/v1/nightly", "/v1/queue", "/v1/key", "/v1/audit", "/v1/openapi.json", "/v1/schemas/plan", "/healthz", "/readyz", "/metrics"} {
		check("GET", p, p, "", 200)
	}
	w.srv.Drain()
	check("GET", "/readyz", "/readyz", "", 503)

	for _, r := range w.srv.routes {
		if !asked[r.method+" "+r.path] {
			t.Errorf("%s %s was not asked", r.method, r.path)
		}
	}
	var paths struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal([]byte(doc.body), &paths); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, methods := range paths.Paths {
		n += len(methods)
	}
	if n != len(w.srv.routes) {
		t.Errorf("the document has %d operations, the server %d routes", n, len(w.srv.routes))
	}
}
