package web

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/access"
	"github.com/repromill/repromill/runner/store"
)

func TestStrangersPages(t *testing.T) {
	w := newWorld(t, nil)
	form := url.Values{"target": {"2604.08075"}}.Encode()
	kind := []string{"Content-Type", "application/x-www-form-urlencoded"}
	for name, c := range map[string]struct {
		method, path, body string
		headers            []string
		want               int
	}{
		"rebinding":             {"GET", "/", "", []string{"Host", "evil.example"}, 421},
		"rebinding with a port": {"GET", "/runs", "", []string{"Host", "evil.example:8080"}, 421},
		"an address of another": {"GET", "/", "", []string{"Host", "192.168.1.7"}, 421},
		"own name":              {"GET", "/", "", []string{"Host", "localhost:1234"}, 200},
		"IPv6":                  {"GET", "/", "", []string{"Host", "[::1]:1234"}, 200},
		"cross-site form":       {"POST", "/runs", form, append(kind, "Origin", "https://evil.example"), 403},
		"null origin":           {"POST", "/runs", form, append(kind, "Origin", "null"), 403},
		"same site, other host": {"POST", "/runs", form, append(kind, "Sec-Fetch-Site", "same-site"), 403},
		"form from nowhere":     {"POST", "/runs", form, kind, 403},
		"text/plain as JSON":    {"POST", "/v1/runs", `{"target":"2604.08075"}`, []string{"Content-Type", "text/plain"}, 403},
		"cross-site JSON":       {"POST", "/v1/runs", `{"target":"2604.08075"}`, []string{"Content-Type", "application/json", "Sec-Fetch-Site", "cross-site"}, 403},
		"a GET that changes":    {"GET", "/v1/runs/x/approve", "", nil, 404},
	} {
		if a := w.ask(c.method, c.path, c.body, c.headers...); a.status != c.want {
			t.Errorf("%s: %d, want %d: %.200s", name, a.status, c.want, a.body)
		}
	}
	if runs, _ := w.store.List(t.Context(), store.Filter{}); len(runs) != 0 {
		t.Errorf("%d runs were made", len(runs))
	}
}

func TestHeaders(t *testing.T) {
	w := newWorld(t, nil)
	id := w.submit()
	w.wait(id, store.Planned)
	for _, p := range []string{"/", "/runs/" + id, "/skus", "/nothing/at/all/here", "/v1/queue"} {
		a := w.get(p)
		csp := a.header.Get("Content-Security-Policy")
		if strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'none'") || a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s: %v", p, a.header)
		}
		if a.header.Get("RateLimit") == "" {
			t.Errorf("%s: no RateLimit", p)
		}
		for _, re := range []string{`<script(?:>| [^>]*>[^<])`, `<style`, ` style="`, ` on[a-z]+="`, `(?:src|href)="(?:https?:)?//[^"]*\.(?:js|css|woff)`} {
			if m := regexp.MustCompile(re).FindString(a.body); m != "" && !strings.HasPrefix(m, `<script src=`) {
				t.Errorf("%s holds %q, which the policy forbids", p, m)
			}
		}
	}
	page := w.get("/").body
	for _, m := range regexp.MustCompile(`"(/assets/[^"]+)"`).FindAllStringSubmatch(page, -1) {
		if a := w.get(m[1]); a.status != 200 || !strings.Contains(a.header.Get("Cache-Control"), "immutable") {
			t.Errorf("%s: %d %v", m[1], a.status, a.header)
		}
	}
}

// TestHostileText puts HTML, escapes and directions wherever a stranger's text
// comes through.
func TestHostileText(t *testing.T) {
	w := newWorld(t, nil)
	const evil = `</title><script>alert(1)</script><img src=x onerror=alert(2)>"' onload=x javascript:alert(3) ` + "\u202e\x1b[31m"
	w.plans.change = func(p *spec.Plan) {
		p.Paper.Title, p.Paper.Authors = evil, []string{evil}
		p.Source.Note = evil
		p.Source.Candidates[0].Note, p.Source.Candidates[0].Evidence[0].Quote = evil, evil
		p.Source.Candidates[0].Evidence[0].URL = "javascript:alert(4)"
		p.Claims[0].Text, p.Claims[0].Metric, p.Claims[0].Dataset = evil, evil, evil
		p.Warnings = append(p.Warnings, spec.Warning{Code: "x", Message: evil})
		p.Decisions = append(p.Decisions, spec.Decision{What: evil, Chosen: evil, Because: evil, Over: []string{evil}})
		p.Runs[1].Command = "python simulate.py # " + evil
		p.Environment.Python.Evidence[0].Quote = evil
	}
	id := w.submit()
	w.wait(id, store.Planned)
	pages := []string{"/runs", "/", "/runs/" + id, "/runs/" + id + "/plan", "/abs/2604.08075"}
	check := func() {
		for _, p := range pages {
			a := w.get(p)
			for _, bad := range []string{"<script>alert", "<img src=x", "\u202e", "\x1b", `href="javascript:`} {
				if strings.Contains(a.body, bad) {
					t.Errorf("%s holds %q", p, bad)
				}
			}
		}
	}
	check()
	w.open()
	w.json("/v1/runs/"+id+"/approve", "").want(t, 200)
	w.wait(id, store.Done)
	pages = append(pages, "/runs/"+id+"/report.html", "/runs/"+id+"/figures/claims.svg", "/runs/"+id+"/figures/card.svg", "/runs/"+id+"/log")
	pages = pages[:len(pages)-1] // the output is text/plain, and escaped nowhere
	check()
	if a := w.get("/runs/" + id + "/log"); !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") || strings.Contains(a.body, "\x1b") {
		t.Errorf("log: %v %q", a.header, a.body)
	}
}

func TestNothingOfThisMachine(t *testing.T) {
	w := newWorld(t, nil)
	base := demoPlan(t)
	plan := func(change func(*spec.Plan)) string {
		p := *base
		p.Bindings, p.Suites = nil, nil
		change(&p)
		p.Seal()
		b, err := json.Marshal(map[string]any{"plan": p})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, body := range map[string]string{
		"a folder":          `{"target":"/etc"}`,
		"a relative folder": `{"target":"./x"}`,
		"a file URL":        `{"target":"file:///etc/passwd"}`,
		"metadata":          `{"target":"http://169.254.169.254/latest/meta-data"}`,
		"loopback":          `{"target":"https://127.1/x.git"}`,
		"a repo of ours":    `{"target":"2604.08075","repo":"/root"}`,
		"not a repo":        `{"target":"2604.08075","repo":"2604.08075"}`,
		"another queue":     `{"target":"2604.08075","queue":"docker"}`,
		"a negative cap":    `{"target":"2604.08075","caps":{"usd":-1}}`,
		"a local plan":      plan(func(p *spec.Plan) { p.Source.Repo = "/etc" }),
		"a bound path":      plan(func(p *spec.Plan) { p.Bindings = []spec.Binding{{Kind: "data", Name: "x", Path: "/etc"}} }),
		"a local baseline":  `{"target":"org/model","compare":{"baselines":["/etc"]}}`,
		"a local arm": plan(func(p *spec.Plan) {
			p.Suites = []spec.Suite{{ID: "x", Name: "x", Kind: "accuracy", Arms: []spec.Arm{{Name: "a", Model: "/etc"}}}}
		}),
		"nothing": `{}`,
		"no plan": `{"plan":{"schema":"x"}}`,
	} {
		if a := w.json("/v1/runs", body); a.status != 422 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	w.json("/v1/runs", `{"target":`).want(t, 400)
	w.json("/v1/runs", `{"no_sandbox":true,"target":"2604.08075"}`).want(t, 400)
	w.json("/v1/runs", `{"target":"`+strings.Repeat("x", maxBody)+`"}`).want(t, 413)
	w.form("/runs", url.Values{"target": {strings.Repeat("x", maxBody)}}).want(t, 413)
	if runs, _ := w.store.List(t.Context(), store.Filter{}); len(runs) != 0 {
		t.Errorf("%d runs were made", len(runs))
	}
	w.json("/v1/runs", plan(func(*spec.Plan) {})).want(t, 201)
}

// key makes an API key and returns the header that shows it.
func (w *world) key(g access.Grant, expires time.Time) (id string, header []string) {
	w.t.Helper()
	token, k, err := access.New(w.t.Context(), w.store, rand.Reader, g, expires, store.Audit{})
	if err != nil {
		w.t.Fatal(err)
	}
	return k.ID, []string{"Authorization", "Bearer " + token}
}

func TestKeys(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Keys = true })
	w.get("/v1/runs").want(t, 401, "Bearer")
	if a := w.get("/runs"); a.status != 303 || a.header.Get("Location") != "/login?next=%2Fruns" {
		t.Errorf("a page without a key: %d %v", a.status, a.header)
	}
	w.get("/healthz").want(t, 200)
	w.get("/readyz").want(t, 200)
	w.get("/metrics").want(t, 401)
	w.get("/v1/runs", "Authorization", "Bearer rpm_aaaaaaaa_"+strings.Repeat("a", 52)).want(t, 401, "unknown")
	w.get("/v1/runs", "Authorization", "Bearer "+strings.Repeat("a", 9000)).want(t, 401, "malformed")
	_, reader := w.key(access.Grant{Name: "r", Scopes: []string{access.Read}}, time.Time{})
	_, over := w.key(access.Grant{Name: "o", Scopes: []string{access.Admin}}, time.Now().Add(-time.Second))
	submitter, sub := w.key(access.Grant{Name: "s", Scopes: []string{access.Submit}, Queues: []string{"second"}}, time.Time{})
	approver, app := w.key(access.Grant{Name: "a", Scopes: []string{access.Approve}}, time.Time{})
	w.get("/v1/runs", over...).want(t, 401, "expired")
	w.get("/v1/runs", reader...).want(t, 200)
	w.json("/v1/runs", `{"target":"2604.08075"}`, reader...).want(t, 403, "scope submit")
	w.json("/v1/runs", `{"target":"2604.08075","queue":"local"}`, sub...).want(t, 403, "local")
	w.json("/v1/runs", `{"target":"2604.08075","approve":true}`, sub...).want(t, 403, "approve")
	id := w.submit(sub...)
	run := w.wait(id, store.Planned)
	n, err := w.store.Submission(t.Context(), run.ID)
	if err != nil || n.By != submitter || n.Queue != "second" {
		t.Errorf("submission = %+v, %v", n, err)
	}
	w.json("/v1/runs/"+id+"/approve", "", sub...).want(t, 403)
	w.json("/v1/runs/"+id+"/cancel", "", reader...).want(t, 403)
	w.json("/v1/runs/"+id+"/approve", "", app...).want(t, 200, `"approved_by":"`+approver+`"`)
	w.get("/v1/audit", reader...).want(t, 403)
	w.open()
	w.wait(id, store.Done)
}

func TestLogin(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Keys = true })
	id, header := w.key(access.Grant{Name: "me", Scopes: []string{access.Admin}}, time.Time{})
	token := strings.TrimPrefix(header[1], "Bearer ")
	w.form("/login", url.Values{"key": {"rpm_no"}, "next": {"/runs"}}).want(t, 401, "malformed")
	a := w.form("/login", url.Values{"key": {token}, "next": {"//evil.example"}})
	if a.status != 303 || a.header.Get("Location") != "/" {
		t.Errorf("login goes to %q", a.header.Get("Location"))
	}
	cookie := a.header.Get("Set-Cookie")
	for _, part := range []string{"HttpOnly", "SameSite=Strict", "Path=/"} {
		if !strings.Contains(cookie, part) {
			t.Errorf("cookie %q lacks %s", cookie, part)
		}
	}
	if strings.Contains(cookie, token) {
		t.Error("the key is in the cookie")
	}
	value, _, _ := strings.Cut(cookie, ";")
	w.get("/runs", "Cookie", value).want(t, 200, "Log out")
	w.get("/audit", "Cookie", value).want(t, 200, "login")
	w.get("/v1/runs", "Cookie", value[:len(value)-2]+"xx").want(t, 401)
	w.get("/v1/runs", "Cookie", strings.Replace(value, id, "aaaaaaaa", 1)).want(t, 401)
	if err := w.store.RevokeKey(t.Context(), id, store.Audit{}); err != nil {
		t.Fatal(err)
	}
	w.get("/v1/runs", "Cookie", value).want(t, 401, "revoked")
	w.get("/v1/runs", header...).want(t, 401, "revoked")
}

func TestLimits(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Keys = true; c.TwoKeys = true; c.MaxWaiting = 3 })
	_, slow := w.key(access.Grant{Name: "slow", Scopes: []string{access.Read}, RequestsPerMinute: 3}, time.Time{})
	for i := range 4 {
		a := w.get("/v1/queue", slow...)
		if want := map[bool]int{true: 200, false: 429}[i < 3]; a.status != want {
			t.Errorf("request %d: %d", i, a.status)
		}
		if i == 3 && (a.header.Get("Retry-After") == "" || a.header.Get("RateLimit-Policy") != `"requests";q=3;w=60`) {
			t.Errorf("headers: %v", a.header)
		}
	}
	gpu := func(hours float64) func(*spec.Plan) {
		return func(p *spec.Plan) {
			p.Estimates = []spec.Estimate{{SKU: "h200", GPUs: 1, Fits: "yes", Kind: spec.Estimated, GPUHours: &spec.Interval{P10: hours / 2, P50: hours, P90: hours * 2}, USD: &spec.Interval{P10: 1, P50: hours * 4, P90: 100}}}
		}
	}
	_, owner := w.key(access.Grant{Name: "owner", Scopes: []string{access.Submit, access.Approve}, GPUHoursPerDay: 10, MaxGPUHours: 8, MaxUSD: 30}, time.Time{})
	_, boss := w.key(access.Grant{Name: "boss", Scopes: []string{access.Approve}}, time.Time{})
	submit := func(hours float64) string {
		w.plans.mu.Lock()
		w.plans.change = gpu(hours)
		w.plans.mu.Unlock()
		id := w.submit(owner...)
		w.wait(id, store.Planned)
		return id
	}
	first := submit(6)
	w.json("/v1/runs/"+first+"/approve", "", owner...).want(t, 403, "does not approve")
	w.json("/v1/runs/"+first+"/approve", "", boss...).want(t, 200)
	w.json("/v1/runs/"+submit(9)+"/approve", "", boss...).want(t, 403, "GPU-hours")
	w.json("/v1/runs/"+submit(7.9)+"/approve", "", boss...).want(t, 403, "USD")
	a := w.json("/v1/runs/"+submit(5)+"/approve", "", boss...)
	a.want(t, 429, "6 GPU-hours of the 10")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	w.json("/v1/runs/"+submit(3)+"/approve", "", boss...).want(t, 200)
	req, err := w.srv.cfg.Runner.Request(t.Context(), first)
	if err != nil || req.Caps.GPUHours != 8 || req.Caps.USD != 30 {
		t.Errorf("caps = %+v, %v; want those of the key", req.Caps, err)
	}
	w.get("/v1/key", owner...).want(t, 200, `"gpu_hours_used_24h":9`)
	w.open()
}

func TestApprovedInAdvance(t *testing.T) {
	w := newWorld(t, nil)
	w.open()
	a := w.json("/v1/runs", `{"target":"2604.08075","approve":true}`)
	a.want(t, 201)
	var run apiRun
	_ = json.Unmarshal([]byte(a.body), &run)
	got := w.wait(run.ID, store.Done)
	if got.ApprovedBy != "local" || got.Verdict != "partially_aligned" {
		t.Errorf("run = %+v", got)
	}
	w.get("/audit?subject="+run.ID).want(t, 200, "in advance")
}

func TestFullQueue(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.MaxWaiting = 2 })
	w.plans.mu.Lock() // nothing gets planned
	status := 0
	for range 3 {
		a := w.json("/v1/runs", `{"target":"2604.08075"}`)
		status = a.status
	}
	w.plans.mu.Unlock()
	if status != 429 {
		t.Errorf("the third submission: %d, want 429", status)
	}
}

// events reads a stream until n events came, or the end.
func (w *world) events(id, after string, n int) (ids []string, ended bool) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.http.URL+"/v1/runs/"+id+"/events", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	sc := bufio.NewScanner(resp.Body)
	for len(ids) < n && sc.Scan() {
		if v, ok := strings.CutPrefix(sc.Text(), "id: "); ok {
			ids = append(ids, v)
		}
		ended = ended || sc.Text() == "event: end"
	}
	return ids, ended
}

func TestStreams(t *testing.T) {
	w := newWorld(t, nil)
	id := w.submit()
	w.wait(id, store.Planned)
	first, _ := w.events(id, "", 4)
	if fmt.Sprint(first) != "[1 2 3 4]" {
		t.Fatalf("events = %v", first)
	}
	type got struct {
		ids   []string
		ended bool
	}
	rest := make(chan got, 5)
	for range 5 {
		go func() { ids, ended := w.events(id, "4", 1000); rest <- got{ids, ended} }()
	}
	w.json("/v1/runs/"+id+"/approve", "").want(t, 200)
	w.open()
	w.wait(id, store.Done)
	last, err := w.store.LastSeq(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		g := <-rest
		if !g.ended || int64(len(g.ids)) != last-4 || g.ids[0] != "5" {
			t.Errorf("%d events from %v, ended %v; want %d", len(g.ids), g.ids, g.ended, last-4)
		}
		for i, v := range g.ids {
			if v != fmt.Sprint(i+5) {
				t.Fatalf("events = %v", g.ids)
			}
		}
	}
	if ids, ended := w.events(id, fmt.Sprint(last), 10); len(ids) != 0 || !ended {
		t.Errorf("after the end: %v %v", ids, ended)
	}
	w.get("/v1/runs/"+id+"/events?after=x").want(t, 400)
	for range 200 { // watchers leave a little after their clients
		if w.srv.hub.watchers() == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := w.srv.hub.watchers(); n != 0 {
		t.Errorf("%d watchers are left", n)
	}
}

func FuzzPaths(f *testing.F) {
	for _, p := range []string{"/abs/2604.08075", "/pdf/2604.08075v2.pdf", "/hep-th/9901001", "/nvidia/Qwen3.6-27B-NVFP4", "/a/../b", "/%2e%2e/x", "/abs/\x00"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		got, err := swapped(p)
		if err == nil && (got.ID == "" || !strings.HasPrefix(got.URL, "https://")) {
			t.Errorf("swapped(%q) = %+v", p, got)
		}
	})
}
