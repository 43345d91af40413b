package intake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/spec"
)

var update = flag.Bool("update", false, "rewrite golden files")

// golden compares a value's JSON with a file, the servers of the test shown as
// their sites.
func golden(t *testing.T, w *world, name string, v any) {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	got := b.String()
	for site, srv := range w.servers {
		got = strings.ReplaceAll(got, srv.URL, "https://"+string(site)+".test")
	}
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(testdata(t, name), got); diff != "" {
		_ = os.WriteFile(file+".got", []byte(got), 0o644)
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func codes(ws []spec.Warning) string {
	var out []string
	for _, w := range ws {
		out = append(out, w.Code)
	}
	return strings.Join(out, " ")
}

func urls(cs []spec.Candidate) string {
	var out []string
	for _, c := range cs {
		out = append(out, c.StatedBy+":"+strings.TrimPrefix(c.URL, "https://"))
	}
	return strings.Join(out, " ")
}

func TestPaper(t *testing.T) {
	w := queueLens(t)
	p, err := w.intake().Paper(t.Context(), "2511.98765", "")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, w, "paper.golden.json", p)
	if p.Version != "v2" {
		t.Errorf("latest was resolved to %q", p.Version)
	}
	if n := w.times(fetch.Arxiv, "/robots.txt"); n != 1 {
		t.Errorf("robots.txt was read %d times", n)
	}
	for _, r := range w.asked {
		if strings.Contains(r, "/src") || strings.Contains(r, "/e-print") {
			t.Errorf("asked for %s", r)
		}
	}

	// A second reading costs no request.
	before := len(w.asked)
	again, err := w.intake().Paper(t.Context(), "2511.98765", "v2")
	if err != nil {
		t.Fatal(err)
	}
	if got := len(w.asked) - before; got != 1 { // the API is asked about v2 by name
		t.Errorf("second reading: %d requests: %v", got, w.asked[before:])
	}
	if diff := cmp.Diff(p.Passages, again.Passages); diff != "" {
		t.Errorf("passages differ: %s", diff)
	}
}

func TestPaperNotFound(t *testing.T) {
	w := queueLens(t)
	for id, want := range map[string]string{
		"2511.99999":   "check the id",
		"2511.98765v9": "the newest version is 2511.98765v2",
		"2511.9876":    "did you mean 2511.09876",
	} {
		_, err := w.intake().Paper(t.Context(), id, "")
		var user interface{ UserError() string }
		if !errors.As(err, &user) || !strings.Contains(user.UserError(), want) {
			t.Errorf("%s: %v, want the fix %q", id, err, want)
		}
	}
	if n := w.times(fetch.Arxiv, "/abs/"); n != 0 {
		t.Errorf("the page was asked %d times although the API had answered", n)
	}
}

// TestAPIFails holds that every odd answer of the API is told apart, and that
// the abstract page then stands in for it.
func TestAPIFails(t *testing.T) {
	is := func(target any) func(error) bool { return func(err error) bool { return errors.As(err, target) } }
	cases := map[string]struct {
		answer answer
		kind   func(error) bool
		words  string
	}{
		"throttled text":  {answer{typ: "text/plain", body: "Rate exceeded."}, is(new(*ThrottledError)), "refuses for now"},
		"throttled feed":  {answer{typ: "application/atom+xml", body: "Rate exceeded.\n"}, is(new(*ThrottledError)), "refuses for now"},
		"429":             {answer{status: 429, typ: "text/plain", body: "Too many"}, is(new(*ThrottledError)), "429"},
		"503":             {answer{status: 503, header: map[string]string{"Retry-After": "7"}, body: "busy"}, is(new(*ThrottledError)), "503"},
		"500":             {answer{status: 500, body: "oops"}, is(new(*fetch.StatusError)), "500"},
		"web page":        {answer{typ: "text/html", body: "<!DOCTYPE html><html><body>Maintenance \x1b[31m</body></html>"}, is(new(*AnswerError)), "web page"},
		"web page as xml": {answer{typ: "application/atom+xml", body: " <html><body>Proxy</body></html>"}, is(new(*AnswerError)), "web page"},
		"error feed":      {answer{typ: "application/atom+xml", body: testdata(t, "atom_error.xml")}, is(new(*AnswerError)), "max_results must be non-negative"},
		"cut feed":        {answer{typ: "application/atom+xml", body: testdata(t, "atom.xml")[:1500]}, is(new(*AnswerError)), "cannot be read"},
		"other root":      {answer{typ: "application/xml", body: "<rss></rss>"}, is(new(*AnswerError)), "cannot be read"},
		"empty":           {answer{typ: "application/atom+xml"}, is(new(*AnswerError)), "nothing"},
		"another paper":   {answer{typ: "application/atom+xml", body: strings.ReplaceAll(testdata(t, "atom.xml"), "2511.98765v2", "2511.11111v1")}, is(new(*AnswerError)), "another paper"},
		"no version":      {answer{typ: "application/atom+xml", body: strings.ReplaceAll(testdata(t, "atom.xml"), "2511.98765v2", "2511.98765")}, is(new(*AnswerError)), "another paper"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := queueLens(t)
			w.set(fetch.ArxivAPI, apiPath("2511.98765"), c.answer)
			p, err := w.intake().Paper(t.Context(), "2511.98765", "")
			if err != nil {
				t.Fatalf("the abstract page did not stand in: %v", err)
			}
			if p.Version != "v2" || p.Title != "QueueLens: Looking Into the Queues of Batch Schedulers" || len(p.Authors) != 2 || p.Authors[0] != "Ada Example" {
				t.Errorf("from the page: %+v", p.Paper)
			}
			if !strings.Contains(codes(p.Warnings), "arxiv_api_unavailable") || !strings.Contains(p.Warnings[0].Message, c.words) {
				t.Errorf("warnings %+v, want words %q", p.Warnings, c.words)
			}
			if urls(p.Links) != "author:github.com/ada-example/queue_lens" {
				t.Errorf("links %s", urls(p.Links))
			}

			w.set(fetch.Arxiv, "/abs/2511.98765", answer{status: 500, body: "oops"})
			w.cfg.CacheDir = t.TempDir()
			_, err = w.intake().Paper(t.Context(), "2511.98765", "")
			if !c.kind(err) || !strings.Contains(err.Error(), "did not help") {
				t.Errorf("both fail: %v", err)
			}
			var user interface{ UserError() string }
			if errors.As(err, &user) {
				t.Errorf("%v is not the user's mistake", err)
			}
		})
	}
}

func TestAbstractPage(t *testing.T) {
	w := queueLens(t)
	w.set(fetch.ArxivAPI, apiPath("2511.98765"), answer{status: 500})
	w.set(fetch.ArxivAPI, apiPath("2511.98765v9"), answer{status: 500})
	p, err := w.intake().Paper(t.Context(), "2511.98765", "")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, w, "abs.golden.json", p.Paper)
	if _, err := w.intake().Paper(t.Context(), "2511.98765", "v9"); !isNotFound(err) || !strings.Contains(err.Error(), "newest version is 2511.98765v2") {
		t.Errorf("v9: %v", err)
	}
	w.set(fetch.ArxivAPI, apiPath("2511.00001"), answer{status: 500})
	if _, err := w.intake().Paper(t.Context(), "2511.00001", ""); !isNotFound(err) {
		t.Errorf("404 page: %v", err)
	}
	w.set(fetch.ArxivAPI, apiPath("2511.00002"), answer{status: 500})
	w.set(fetch.Arxiv, "/abs/2511.00002", answer{typ: "text/html", body: "<html><body>Search v0.5</body></html>"})
	if _, err := w.intake().Paper(t.Context(), "2511.00002", ""); err == nil || !strings.Contains(err.Error(), "not the abstract") {
		t.Errorf("odd page: %v", err)
	}
}

func TestWithdrawn(t *testing.T) {
	w := queueLens(t)
	feed := strings.Replace(testdata(t, "atom.xml"), "12 pages", "This paper has been withdrawn by the authors; 12 pages", 1)
	w.set(fetch.ArxivAPI, apiPath("2511.98765"), answer{typ: "application/atom+xml", body: feed})
	p, err := w.intake().Paper(t.Context(), "2511.98765", "")
	if err != nil || !strings.Contains(codes(p.Warnings), "withdrawn") {
		t.Errorf("%v, warnings %v", err, codes(p.Warnings))
	}
}

func TestRobots(t *testing.T) {
	w := queueLens(t)
	w.set(fetch.Arxiv, "/robots.txt", answer{typ: "text/plain", body: "User-agent: *\nDisallow: /html\n"})
	p, err := w.intake().Paper(t.Context(), "2511.98765", "")
	if err != nil {
		t.Fatal(err)
	}
	if codes(p.Warnings) != "html_unavailable" || !strings.Contains(p.Warnings[0].Message, "robots.txt") {
		t.Errorf("warnings %+v", p.Warnings)
	}
	if w.times(fetch.Arxiv, "/html") != 0 {
		t.Error("the page was read against robots.txt")
	}
}

func TestSecondarySourcesFail(t *testing.T) {
	w := queueLens(t)
	w.set(fetch.HF, "/api/papers/2511.98765", answer{status: 502, body: "bad gateway"})
	p, err := w.intake().Paper(t.Context(), "2511.98765", "")
	if err != nil || !strings.Contains(codes(p.Warnings), "hub_unavailable") {
		t.Errorf("%v, warnings %q", err, codes(p.Warnings))
	}
	for _, body := range []string{"<html>login</html>", `[]`, `"x"`, `{"githubRepo":`, `{"githubRepo":7,"projectPage":[]}`, `{"githubRepo":"javascript:alert(1)"}`} {
		w.set(fetch.HF, "/api/papers/2511.98765", answer{typ: "application/json", body: body})
		w.cfg.CacheDir = t.TempDir()
		p, err := w.intake().Paper(t.Context(), "2511.98765", "")
		if err != nil || urls(p.Links) != "author:github.com/ada-example/queue_lens" {
			t.Errorf("%s: %v, links %s", body, err, urls(p.Links))
		}
	}
}

// noAuthorLinks is the paper without a word about its code.
func noAuthorLinks(t *testing.T) *world {
	w := queueLens(t)
	feed := strings.Replace(testdata(t, "atom.xml"), `Our code is available at https://github.com/ada-example/queue\_lens.`, "", 1)
	w.set(fetch.ArxivAPI, apiPath("2511.98765"), answer{typ: "application/atom+xml", body: feed})
	page := strings.ReplaceAll(testdata(t, "paper.html"), "https://github.com/ada-example/queue_lens", "")
	w.set(fetch.Arxiv, "/html/2511.98765v2", answer{typ: "text/html", body: page})
	w.set(fetch.HF, "/api/papers/2511.98765", answer{status: 404, typ: "application/json", body: `{"error":"Paper not found"}`})
	return w
}

func TestNoCode(t *testing.T) {
	w := noAuthorLinks(t)
	p, err := w.intake().Paper(t.Context(), "2511.98765", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Links) != 0 {
		t.Errorf("a link was guessed: %s", urls(p.Links))
	}
	if len(p.Mentions) != 4 || !strings.HasSuffix(p.Mentions[3].URL, "cited/cited-code") {
		t.Errorf("mentions %s", urls(p.Mentions))
	}
}

func TestAggregator(t *testing.T) {
	w := noAuthorLinks(t)
	w.set(fetch.AlphaXiv, "/papers/v3/2511.98765", answer{typ: "application/json", body: `{"versionId":"0193","groupId":"0192-ab","title":"QueueLens"}`})
	list := `[{"type":"github","url":"https://github.com/fan/queue-lens","stars":900,"source":"user"},{"type":"github","url":"https://github.com/ada-example/lens","stars":2,"source":"author"},{"url":"https://github.com/trending"}]`
	for _, body := range []string{list, `{"implementations":` + list + `}`} {
		w.set(fetch.AlphaXiv, "/papers/v3/0192-ab/implementations", answer{typ: "application/json", body: body})
		w.cfg.CacheDir = t.TempDir()
		p, err := w.intake().Paper(t.Context(), "2511.98765", "")
		if err != nil {
			t.Fatal(err)
		}
		if got := urls(p.Links); got != "aggregator:github.com/ada-example/lens aggregator:github.com/fan/queue-lens" && !strings.HasPrefix(got, "aggregator:github.com/ada-example/lens") {
			t.Errorf("links %s", got)
		}
	}
	w.set(fetch.AlphaXiv, "/papers/v3/2511.98765", answer{status: 500})
	w.cfg.CacheDir = t.TempDir()
	p, err := w.intake().Paper(t.Context(), "2511.98765", "")
	if err != nil || !strings.Contains(codes(p.Warnings), "aggregator_unavailable") {
		t.Errorf("%v, warnings %q", err, codes(p.Warnings))
	}
	before := w.times(fetch.AlphaXiv, "/")
	if _, err := queueLens(t).intake().Paper(t.Context(), "2511.98765", ""); err != nil {
		t.Fatal(err)
	}
	if w.times(fetch.AlphaXiv, "/") != before {
		t.Error("the aggregator was asked although the authors state their code")
	}
}

func TestModelCards(t *testing.T) {
	w := noAuthorLinks(t)
	w.set(fetch.HF, "/api/papers/2511.98765", answer{typ: "application/json", body: `{"id":"2511.98765"}`})
	w.set(fetch.HF, "/ada-example/lens-7b/resolve/main/README.md", answer{body: "---\ntags: [x]\n---\n# Lens\n- **Repository:** [the code](https://github.com/ada-example/lens)\nRun it with [llama.cpp](https://github.com/ggml-org/llama.cpp).\n"})
	p, err := w.intake().Paper(t.Context(), "2511.98765", "")
	if err != nil {
		t.Fatal(err)
	}
	if got := urls(p.Links); got != "hub_claimed:github.com/ada-example/lens" {
		t.Errorf("links %s", got)
	}
}

func TestOldID(t *testing.T) {
	w := newWorld(t)
	feed := strings.ReplaceAll(testdata(t, "atom.xml"), "2511.98765v2", "hep-th/9901001v3")
	w.set(fetch.ArxivAPI, apiPath("hep-th/9901001"), answer{typ: "application/atom+xml", body: feed})
	w.set(fetch.Arxiv, "/html/hep-th/9901001v3", answer{typ: "text/html", body: testdata(t, "paper.html")})
	p, err := w.intake().Paper(t.Context(), "hep-th/9901001", "")
	if err != nil {
		t.Fatal(err)
	}
	if p.ID != "hep-th/9901001" || p.Version != "v3" || len(p.Passages) < 8 || w.times(fetch.HF, "/") != 0 {
		t.Errorf("%+v, %d passages, asked %v", p.Paper, len(p.Passages), w.asked)
	}
}

func TestDeadAndMovedLinks(t *testing.T) {
	w := queueLens(t)
	w.set(fetch.GitHub, "/ada-example/queue_lens", answer{status: 404, body: "Not Found"})
	w.set(fetch.HF, "/api/papers/2511.98765", answer{typ: "application/json", body: `{"githubRepo":"https://github.com/ada-example/old-name"}`})
	w.set(fetch.GitHub, "/ada-example/old-name", answer{status: 301, header: map[string]string{"Location": w.servers[fetch.GitHub].URL + "/ada-lab/new-name"}})
	w.set(fetch.GitHub, "/ada-lab/new-name", answer{typ: "text/html", body: "<html></html>"})
	p, err := w.intake().Paper(t.Context(), "2511.98765", "")
	if err != nil {
		t.Fatal(err)
	}
	if got := codes(p.Warnings); !strings.Contains(got, "code_link_dead") {
		t.Errorf("warnings %s", got)
	}
	if len(p.Links) != 2 || p.Links[1].URL != "https://github.com/ada-example/queue_lens" || !strings.Contains(p.Links[1].Reason, "status 404") {
		t.Errorf("the dead link is not last: %+v", p.Links)
	}

	w.cfg.Mirror = mirror(t, map[string]string{
		"export.arxiv.org/api/query@id_list=2511.98765&max_results=1": testdata(t, "atom.xml"),
		"github.com/ada-example/queue_lens":                           "<html></html>",
		"github.com/ada-example/queue_lens.meta.json":                 `{"url":"https://github.com/ada-example/queue_lens","final_url":"https://github.com/ada-lab/lens","status":200}`,
	})
	if p, err = w.intake().Paper(t.Context(), "2511.98765", ""); err != nil {
		t.Fatal(err)
	}
	if len(p.Links) != 1 || p.Links[0].URL != "https://github.com/ada-lab/lens" || !strings.Contains(p.Links[0].Reason, "has moved") || !strings.Contains(codes(p.Warnings), "code_link_moved") {
		t.Errorf("links %+v, warnings %s", p.Links, codes(p.Warnings))
	}
}

// mirror writes an offline mirror.
func mirror(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(body), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestShortenerAndArchive(t *testing.T) {
	w := noAuthorLinks(t)
	feed := strings.Replace(testdata(t, "atom.xml"), `https://github.com/ada-example/queue\_lens`, "https://aka.ms/queue-lens", 1)
	w.set(fetch.ArxivAPI, apiPath("2511.98765"), answer{typ: "application/atom+xml", body: feed})
	p, err := w.intake().Paper(t.Context(), "2511.98765", "")
	if err != nil {
		t.Fatal(err)
	}
	if got := codes(p.Warnings); got != "code_link_not_followed code_link_not_followed" || !strings.Contains(p.Warnings[0].Message, "aka.ms") {
		t.Errorf("warnings %+v", p.Warnings)
	}
	if len(p.Links) != 0 {
		t.Errorf("links %s", urls(p.Links))
	}
	// A site that the user has named may be asked, and leads to the code.
	w.cfg.Endpoints["short"] = "https://aka.ms"
	w.cfg.Mirror = mirror(t, map[string]string{
		"export.arxiv.org/api/query@id_list=2511.98765&max_results=1": feed,
		"aka.ms/queue-lens":           "<html></html>",
		"aka.ms/queue-lens.meta.json": `{"url":"https://aka.ms/queue-lens","final_url":"https://github.com/ada-example/queue_lens","status":200}`,
	})
	if p, err = w.intake().Paper(t.Context(), "2511.98765", ""); err != nil {
		t.Fatal(err)
	}
	if got := urls(p.Links); got != "author:github.com/ada-example/queue_lens" || len(p.Links[0].Evidence) != 2 {
		t.Errorf("links %s, warnings %+v", got, p.Warnings)
	}
}

func TestMirrorOverlay(t *testing.T) {
	feed := strings.Replace(testdata(t, "atom.xml"), `Our code is available at https://github.com/ada-example/queue\_lens.`, "", 1)
	dir := mirror(t, map[string]string{
		"overlay.json": `{"links":[{"arxiv":"2511.98765","url":"https://github.com/some/simulation","note":"independent <b>re-implementation</b>","simulated":true},{"arxiv":"2511.00001","url":"https://github.com/not/this"}]}`,
		"export.arxiv.org/api/query@id_list=2511.98765&max_results=1": feed,
		"arxiv.org/html/2511.98765v2":                                 strings.ReplaceAll(testdata(t, "paper.html"), "https://github.com/ada-example/queue_lens", ""),
	})
	c, err := fetch.New(fetch.Config{CacheDir: t.TempDir(), Mirror: dir})
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(Config{Client: c}).Paper(t.Context(), "2511.98765", "")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Links) != 1 {
		t.Fatalf("links %s", urls(p.Links))
	}
	l := p.Links[0]
	if l.StatedBy != "mirror" || !l.Simulated || l.Note != "independent <b>re-implementation</b>" || l.Rank != 1 {
		t.Errorf("link %+v", l)
	}
	if len(p.Passages) < 8 || len(p.Mentions) != 4 {
		t.Errorf("%d passages, mentions %s", len(p.Passages), urls(p.Mentions))
	}
	if got := codes(p.Warnings); got != "code_link_not_followed" {
		t.Errorf("warnings %q: an offline mirror that holds little is not a fault", got)
	}
	_, err = New(Config{Client: c}).Paper(t.Context(), "2511.00001", "")
	var user interface{ UserError() string }
	if !errors.As(err, &user) || !strings.Contains(user.UserError(), "mirror add") {
		t.Errorf("not in the mirror: %v", err)
	}
}

func TestCancelled(t *testing.T) {
	w := queueLens(t)
	ctx, cancel := context.WithCancel(t.Context())
	w.set(fetch.Arxiv, "/html/2511.98765v2", answer{handler: func(http.ResponseWriter, *http.Request) { cancel() }})
	if _, err := w.intake().Paper(ctx, "2511.98765", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestConcurrent(t *testing.T) {
	w := queueLens(t)
	in := w.intake()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if p, err := in.Paper(t.Context(), "2511.98765", ""); err != nil || len(p.Links) != 1 {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
}
