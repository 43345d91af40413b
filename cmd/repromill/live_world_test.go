package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// seen is one request that a site of the world got.
type seen struct {
	site, path string
	header     http.Header
}

// world is the outside as the command meets it: one real server per site on
// this machine, GitHub's speaking git through the real http-backend, and a
// fresh home whose configuration names them.
type world struct {
	t    *testing.T
	home string
	git  string // root of GitHub's repositories: <owner>/<name>

	mu      sync.Mutex
	asked   []seen
	answers map[string]http.HandlerFunc // by site and path with query
	servers map[string]*httptest.Server
}

var worldSites = []string{"arxiv_api", "arxiv", "hf", "github", "alphaxiv"}

func newWorld(t *testing.T) *world {
	t.Helper()
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skipf("the servers of this test speak git through git http-backend: %v", err)
	}
	w := &world{t: t, home: t.TempDir(), git: t.TempDir(), answers: map[string]http.HandlerFunc{}, servers: map[string]*httptest.Server{}}
	backend := &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env: []string{"GIT_PROJECT_ROOT=" + w.git, "GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_GLOBAL=/dev/null",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
		Stderr: io.Discard, Logger: log.New(io.Discard, "", 0),
	}
	conf := "endpoints:\n"
	for _, site := range worldSites {
		srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.serve(site, backend, rw, r) }))
		t.Cleanup(srv.Close)
		w.servers[site] = srv
		conf += "  " + site + ": " + srv.URL + "\n"
	}
	w.write("config/repromill/config.yaml", conf)
	w.answer("arxiv", "/robots.txt", 200, "text/plain", "User-agent: *\nCrawl-delay: 15\nAllow: /abs\nAllow: /html\nDisallow: /e-print\n")
	return w
}

func (w *world) serve(site string, backend http.Handler, rw http.ResponseWriter, r *http.Request) {
	key := r.URL.RequestURI()
	w.mu.Lock()
	w.asked = append(w.asked, seen{site, key, r.Header.Clone()})
	h := w.answers[site+" "+key]
	w.mu.Unlock()
	switch {
	case h != nil:
		h(rw, r)
	case site == "github" && (strings.Contains(key, "/info/refs?") || strings.HasSuffix(key, "/git-upload-pack")):
		backend.ServeHTTP(rw, r)
	case site == "github" && w.isRepo(r.URL.Path):
		fmt.Fprintf(rw, "<html><title>GitHub - %s</title></html>", html.EscapeString(r.URL.Path[1:]))
	default:
		rw.Header().Set("Content-Type", "text/html")
		rw.WriteHeader(http.StatusNotFound)
		fmt.Fprint(rw, "<html><body>not found</body></html>")
	}
}

func (w *world) isRepo(path string) bool {
	_, err := os.Stat(filepath.Join(w.git, filepath.FromSlash(path), ".git"))
	return err == nil
}

// handle sets what a site says to one path with query.
func (w *world) handle(site, path string, h http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[site+" "+path] = h
}

func (w *world) answer(site, path string, status int, typ, body string) {
	w.handle(site, path, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", typ)
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, body)
	})
}

// requests are those so far whose path begins so; site "" is any.
func (w *world) requests(site, prefix string) (out []seen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.asked {
		if (site == "" || s.site == site) && strings.HasPrefix(s.path, prefix) {
			out = append(out, s)
		}
	}
	return out
}

// stop takes all sites off the network.
func (w *world) stop() {
	for _, s := range w.servers {
		s.CloseClientConnections()
		s.Close()
	}
}

func (w *world) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.home, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// outcome is what one invocation left.
type outcome struct {
	code           int
	stdout, stderr string
}

// command is the program as a process of its own, at home in the world.
func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.Command("repromill", args...)
	cmd.Dir = w.home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.home, "USER=tester", "REPROMILL_EXECUTOR=local", "LANG=C.UTF-8", noRaceSleep}
	for name, dir := range map[string]string{"STATE": "state", "DATA": "data", "CACHE": "cache", "CONFIG": "config"} {
		cmd.Env = append(cmd.Env, "XDG_"+name+"_HOME="+filepath.Join(w.home, dir))
	}
	return cmd
}

// finish waits for a command whose streams are o's and holds that no crash of
// ours reaches the user.
func (w *world) finish(cmd *exec.Cmd, stdout, stderr *bytes.Buffer) outcome {
	w.t.Helper()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatalf("%v: %v", cmd.Args, err)
	}
	o := outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	if testing.Verbose() {
		w.t.Logf("%v → %d\n%s%s", cmd.Args[1:], o.code, o.stdout, o.stderr)
	}
	bad := []string{"goroutine ", "panic:", "runtime error", "\x1b"}
	if !slices.Contains(cmd.Args, "--json") {
		bad = append(bad, "\u202e")
	}
	for _, bad := range bad {
		if strings.Contains(o.stdout+o.stderr, bad) {
			w.t.Errorf("%v shows %q:\n%s%s", cmd.Args[1:], bad, o.stdout, o.stderr)
		}
	}
	return o
}

func (w *world) start(cmd *exec.Cmd) (stdout, stderr *bytes.Buffer) {
	w.t.Helper()
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	return stdout, stderr
}

// run runs the command to its end, with further environment first.
func (w *world) run(env []string, args ...string) outcome {
	w.t.Helper()
	cmd := w.command(args...)
	cmd.Env = append(cmd.Env, env...)
	stdout, stderr := w.start(cmd)
	return w.finish(cmd, stdout, stderr)
}

// must is run with an exit code that is promised to t, a test of the world's
// own or below it.
func (w *world) must(t *testing.T, code int, args ...string) outcome {
	t.Helper()
	o := w.run(nil, args...)
	if o.code != code {
		t.Fatalf("%v: exit %d, want %d\n%s%s", args, o.code, code, o.stdout, o.stderr)
	}
	return o
}

// has holds that a text has all the words.
func has(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("no %q in:\n%s", word, text)
		}
	}
}

// decode reads the JSON that a command printed.
func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	return v
}

// gitCommand runs git in a repository of GitHub's.
func (w *world) gitIn(repo, stdin string, args ...string) string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = filepath.Join(w.git, filepath.FromSlash(repo))
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_AUTHOR_DATE=2025-05-06T07:08:09Z",
		"GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@example.org", "GIT_COMMITTER_DATE=2025-05-06T07:08:09Z")
	cmd.Stdin = strings.NewReader(stdin)
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	if err := cmd.Run(); err != nil {
		w.t.Fatalf("git %v: %v\n%s", args, err, complaint.String())
	}
	return strings.TrimSpace(out.String())
}

// repo makes a repository on GitHub with the files and returns its commit.
func (w *world) repo(name string, files map[string]string) string {
	w.t.Helper()
	dir := filepath.Join(w.git, filepath.FromSlash(name))
	for file, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			w.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	w.gitIn(name, "", "init", "-q", "-b", "main", ".")
	w.gitIn(name, "", "add", "-A")
	w.gitIn(name, "", "commit", "-q", "--allow-empty", "-m", "code")
	return w.gitIn(name, "", "rev-parse", "HEAD")
}

// paper is what arXiv says about one.
type paper struct {
	id, version, title, abstract string
	body                         string // HTML of the paper's first section
}

const atomPage = `<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom">
  <title type="html">ArXiv Query: search_query=&amp;id_list=ID&amp;start=0&amp;max_results=1</title>
  <id>http://arxiv.org/api/cHxbiOdZaP56ODnBPIenZhzg5f8</id>
  <updated>2026-11-20T00:00:00-05:00</updated>
  <opensearch:totalResults xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/">1</opensearch:totalResults>
  <entry>
    <id>http://arxiv.org/abs/IDVERSION</id>
    <updated>2025-12-03T17:59:59Z</updated>
    <published>2025-11-18T09:12:44Z</published>
    <title>TITLE</title>
    <summary>  ABSTRACT
</summary>
    <author><name>Ada Example</name></author>
    <link href="http://arxiv.org/abs/IDVERSION" rel="alternate" type="text/html"/>
    <link title="pdf" href="http://arxiv.org/pdf/IDVERSION" rel="related" type="application/pdf"/>
    <arxiv:primary_category xmlns:arxiv="http://arxiv.org/schemas/atom" term="cs.DC" scheme="http://arxiv.org/schemas/atom"/>
    <category term="cs.DC" scheme="http://arxiv.org/schemas/atom"/>
  </entry>
</feed>`

// atomUnknown is arXiv's answer for an id or a version it does not have.
const atomUnknown = `<?xml version="1.0" encoding="UTF-8"?>
<feed xmlns="http://www.w3.org/2005/Atom">
  <title type="html">ArXiv Query: search_query=&amp;id_list=ID&amp;start=0&amp;max_results=1</title>
  <id>http://arxiv.org/api/5t5wD0A0R1Yr0cTkWPVIdyBdTNg</id>
  <opensearch:totalResults xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/">1</opensearch:totalResults>
  <entry>
    <link rel="alternate" type="text/html"/>
    <link title="pdf" rel="related" type="application/pdf"/>
    <author><name/></author>
  </entry>
</feed>`

const htmlPage = `<!DOCTYPE html><html lang="en"><head><title>TITLE</title></head><body>
<div class="ltx_page_main"><div class="ltx_page_content"><article class="ltx_document">
<h1 class="ltx_title ltx_title_document">TITLE</h1>
<div class="ltx_abstract"><h6 class="ltx_title ltx_title_abstract">Abstract</h6><p class="ltx_p">ABSTRACT</p></div>
<section class="ltx_section" id="S1"><h2 class="ltx_title ltx_title_section"><span class="ltx_tag ltx_tag_section">1 </span>Introduction</h2>
<div class="ltx_para" id="S1.p1"><p class="ltx_p">BODY</p></div></section>
</article></div></div></body></html>`

const absPage = `<!DOCTYPE html><html lang="en"><head><title>[ID] TITLE</title>
<meta name="citation_title" content="TITLE" /><meta name="citation_author" content="Example, Ada" />
<meta name="citation_arxiv_id" content="ID" /><meta name="citation_abstract" content="ABSTRACT" /></head>
<body><div id="abs"><h1 class="title mathjax"><span class="descriptor">Title:</span>TITLE</h1>
<blockquote class="abstract mathjax"><span class="descriptor">Abstract:</span>ABSTRACT</blockquote></div>
<div class="submission-history"><h2>Submission history</h2> From: Ada Example<br/><strong>[VERSION]</strong> Wed, 3 Dec 2025 17:59:59 UTC (1,124 KB)<br/></div>
</body></html>`

func apiPath(id string) string { return "/api/query?id_list=" + id + "&max_results=1" }

// publish puts a paper on arXiv, and the hub, which has no page of it.
func (w *world) publish(p paper) {
	fill := strings.NewReplacer("IDVERSION", p.id+p.version, "ID", p.id, "VERSION", p.version, "TITLE", html.EscapeString(p.title),
		"ABSTRACT", html.EscapeString(p.abstract), "BODY", p.body).Replace
	const atom, page = "application/atom+xml; charset=UTF-8", "text/html; charset=utf-8"
	for _, v := range []string{"", p.version} {
		w.answer("arxiv_api", apiPath(p.id+v), 200, atom, fill(atomPage))
		w.answer("arxiv", "/abs/"+p.id+v, 200, page, fill(absPage))
	}
	w.answer("arxiv_api", apiPath(p.id+"v99"), 200, atom, fill(atomUnknown))
	w.answer("arxiv", "/html/"+p.id+p.version, 200, page, fill(htmlPage))
	w.answer("hf", "/api/papers/"+p.id, 404, "application/json", `{"error":"Paper not found"}`)
	w.answer("hf", "/api/arxiv/"+p.id+"/repos", 200, "application/json", `{"models":[],"datasets":[],"spaces":[]}`)
}

// smallPaper is a repository whose README states a number that its script
// gives, seconds after it was started.
func smallPaper(seconds float64) map[string]string {
	return map[string]string{
		"README.md": "# Small paper\n\n## Reproduce\n\n```bash\npython3 run.py --out results/metrics.json\n```\n\n" +
			"This should give an accuracy of 93.2 %, within 0.5. The script writes\n`results/metrics.json` with the key `accuracy` in percent.\n",
		"run.py": fmt.Sprintf(`import argparse, json, os, time
p = argparse.ArgumentParser()
p.add_argument("--out", default="results/metrics.json")
a = p.parse_args()
print("starting", flush=True)
time.sleep(%g)
os.makedirs(os.path.dirname(a.out), exist_ok=True)
right = sum(1 for i in range(1000) if i %% 500 > 32)
accuracy = 100 * right / 1000
with open(a.out, "w") as f:
    json.dump({"accuracy": accuracy}, f)
print(f"accuracy: {accuracy:.1f}")
`, seconds),
	}
}

// queueLens puts a paper on arXiv whose abstract links a small repository.
func (w *world) queueLens(seconds float64) (commit string) {
	w.publish(paper{id: "2511.98765", version: "v2", title: "QueueLens: Looking Into Queues",
		abstract: "We look into queues. Our code is available at https://github.com/ada-example/queue_lens.", body: "Queues grow."})
	return w.repo("ada-example/queue_lens", smallPaper(seconds))
}

// planOf is the part of a plan document that the tests look at.
type planOf struct {
	Hash  string
	Paper struct{ ID, Version string }
	Runs  []struct {
		Command, Status string
		Argv            []string
		Selected        bool
		Reasons         []string
	}
	Source struct {
		Repo, Commit string
		StatedBy     string `json:"stated_by"`
		Facts        []struct{ Name, Value string }
		Candidates   []struct {
			URL, Reason string
			Chosen      bool
		}
	}
	Warnings []struct{ Code, Message string }
}

func (p planOf) codes() (out []string) {
	for _, w := range p.Warnings {
		out = append(out, w.Code)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
