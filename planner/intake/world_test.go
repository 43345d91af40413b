package intake

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/repromill/repromill/planner/fetch"
)

// answer is what a site of the test says to one path and query.
type answer struct {
	status  int // 0 is 200
	typ     string
	header  map[string]string
	body    string
	handler http.HandlerFunc
}

// world is the outside: one real HTTP server per site.
type world struct {
	t       *testing.T
	mu      sync.Mutex
	answers map[fetch.Site]map[string]answer
	asked   []string
	servers map[fetch.Site]*httptest.Server
	cfg     fetch.Config
}

var worldSites = []fetch.Site{fetch.ArxivAPI, fetch.Arxiv, fetch.HF, fetch.GitHub, fetch.AlphaXiv}

func newWorld(t *testing.T) *world {
	w := &world{t: t, answers: map[fetch.Site]map[string]answer{}, servers: map[fetch.Site]*httptest.Server{}}
	w.cfg = fetch.Config{
		CacheDir: t.TempDir(), Endpoints: map[fetch.Site]string{}, Limits: map[fetch.Site]fetch.Limit{},
		Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
	for _, s := range worldSites {
		w.answers[s] = map[string]answer{}
		srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.serve(s, rw, r) }))
		t.Cleanup(srv.Close)
		w.servers[s] = srv
		w.cfg.Endpoints[s] = srv.URL
		w.cfg.Limits[s] = fetch.Limit{Conns: 4}
	}
	w.set(fetch.Arxiv, "/robots.txt", answer{typ: "text/plain", body: "User-agent: *\nCrawl-delay: 15\nAllow: /abs\nAllow: /html\nDisallow: /e-print\nDisallow: /src\nDisallow: /api\n"})
	return w
}

func (w *world) set(s fetch.Site, pathQuery string, a answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[s][pathQuery] = a
}

func (w *world) serve(s fetch.Site, rw http.ResponseWriter, r *http.Request) {
	key := r.URL.RequestURI()
	w.mu.Lock()
	w.asked = append(w.asked, string(s)+" "+key)
	a, ok := w.answers[s][key]
	w.mu.Unlock()
	if !ok {
		a = answer{status: 404, typ: "text/html", body: "<html><body>not here</body></html>"}
	}
	if a.handler != nil {
		a.handler(rw, r)
		return
	}
	if a.typ != "" {
		rw.Header().Set("Content-Type", a.typ)
	}
	for k, v := range a.header {
		rw.Header().Set(k, v)
	}
	rw.WriteHeader(max(a.status, 200))
	_, _ = rw.Write([]byte(a.body))
}

// times counts the requests to a site whose path begins so.
func (w *world) times(s fetch.Site, prefix string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, a := range w.asked {
		if strings.HasPrefix(a, string(s)+" "+prefix) {
			n++
		}
	}
	return n
}

func (w *world) intake() *Intake {
	c, err := fetch.New(w.cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	return New(Config{Client: c})
}

func testdata(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func apiPath(id string) string {
	return "/api/query?id_list=" + strings.ReplaceAll(id, "/", "%2F") + "&max_results=1"
}

// queueLens fills the world with the invented paper of the fixtures.
func queueLens(t *testing.T) *world {
	w := newWorld(t)
	feed := testdata(t, "atom.xml")
	w.set(fetch.ArxivAPI, apiPath("2511.98765"), answer{typ: "application/atom+xml; charset=UTF-8", body: feed})
	w.set(fetch.ArxivAPI, apiPath("2511.98765v2"), answer{typ: "application/atom+xml; charset=UTF-8", body: feed})
	w.set(fetch.ArxivAPI, apiPath("2511.98765v9"), answer{typ: "application/atom+xml; charset=UTF-8", body: testdata(t, "atom_unknown.xml")})
	w.set(fetch.ArxivAPI, apiPath("2511.99999"), answer{typ: "application/atom+xml; charset=UTF-8", body: testdata(t, "atom_unknown.xml")})
	w.set(fetch.Arxiv, "/html/2511.98765v2", answer{typ: "text/html; charset=utf-8", body: testdata(t, "paper.html")})
	for _, v := range []string{"", "v2", "v9"} {
		w.set(fetch.Arxiv, "/abs/2511.98765"+v, answer{typ: "text/html; charset=utf-8", body: testdata(t, "abs.html")})
	}
	w.set(fetch.HF, "/api/papers/2511.98765", answer{typ: "application/json", body: `{"id":"2511.98765","authors":[{"_id":"65f","name":"Ada Example","hidden":false}],"publishedAt":"2025-11-18T09:12:44.000Z","title":"QueueLens","summary":"…","upvotes":12,"discussionId":"65f0","githubRepo":"https://github.com/Ada-Example/queue_lens","githubStars":41,"projectPage":"https://queuelens.github.io/","ai_keywords":["queue"]}`})
	w.set(fetch.HF, "/api/arxiv/2511.98765/repos", answer{typ: "application/json", body: `{"models":[{"_id":"1","id":"ada-example/lens-7b","likes":3,"private":false,"downloads":10}],"datasets":[{"id":"ada-example/queue-traces"}],"spaces":[]}`})
	w.set(fetch.GitHub, "/ada-example/queue_lens", answer{typ: "text/html", body: "<html><title>ada-example/queue_lens</title></html>"})
	return w
}

func longBody(n int) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/html; charset=utf-8")
		rw.Header().Set("Content-Length", strconv.Itoa(n))
		chunk := []byte(strings.Repeat("<p>padding that goes on and on</p>", 1000))
		for sent := 0; sent < n; {
			k := min(len(chunk), n-sent)
			if _, err := rw.Write(chunk[:k]); err != nil {
				return
			}
			sent += k
		}
	}
}
