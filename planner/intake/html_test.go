package intake

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"runtime"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/repromill/repromill/planner/fetch"
)

func gzipped(t *testing.T, zeros int) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	chunk := make([]byte, 1<<20)
	for range zeros >> 20 {
		if _, err := z.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestHTMLPage holds that whatever the HTML page does, the paper is read, the
// reason is a warning, and the memory stays flat.
func TestHTMLPage(t *testing.T) {
	bomb := gzipped(t, 64<<20)
	latin := strings.Replace(testdata(t, "paper.html"), "utf-8", "iso-8859-1", 1)
	latin = strings.Replace(latin, "It follows.", "Na\xefve M\xfcller \xff\xfe.", 1)
	cases := map[string]struct {
		answer answer
		want   string // warnings
		text   string // in some passage
	}{
		"none":            {answer{status: 404, typ: "text/html", body: "<html><body><h1>No HTML for '2511.98765'</h1></body></html>"}, "no_html", ""},
		"none with 200":   {answer{typ: "text/html", body: "<html><body><h1>No HTML for '2511.98765v2'</h1><p>HTML is not available for the source.</p></body></html>"}, "no_html", ""},
		"server error":    {answer{status: 500, body: "oops"}, "html_unavailable", ""},
		"throttled":       {answer{status: 429, body: "slow"}, "html_unavailable", ""},
		"forbidden":       {answer{status: 403, body: "no"}, "html_unavailable", ""},
		"plain text":      {answer{typ: "text/plain", body: "hello"}, "html_unavailable", ""},
		"pdf":             {answer{typ: "application/pdf", body: "%PDF-1.7"}, "html_unavailable", ""},
		"empty":           {answer{typ: "text/html"}, "html_unavailable", ""},
		"50 MB":           {answer{handler: longBody(50 << 20)}, "html_unavailable", ""},
		"endless":         {answer{handler: longBody(1 << 50)}, "html_unavailable", ""},
		"gzip bomb":       {answer{typ: "text/html", header: map[string]string{"Content-Encoding": "gzip"}, body: string(bomb)}, "html_unavailable", ""},
		"broken gzip":     {answer{typ: "text/html", header: map[string]string{"Content-Encoding": "gzip"}, body: "not gzip"}, "html_unavailable", ""},
		"latin-1":         {answer{typ: "text/html; charset=iso-8859-1", body: latin}, "code_link_not_followed", "Naïve Müller"},
		"lying charset":   {answer{typ: "text/html; charset=utf-8", body: latin}, "code_link_not_followed", "Nave Mller ."},
		"unknown charset": {answer{typ: "text/html; charset=klingon", body: testdata(t, "paper.html")}, "code_link_not_followed", "It follows."},
		"deep":            {answer{typ: "text/html", body: strings.Repeat("<div>", 2000) + "x"}, "html_unavailable", ""},
		"plain page":      {answer{typ: "text/html", body: "<html><body><h1>T</h1><p>One <b>bold</b> claim.</p><table><tr><td>a</td><td>1</td></tr></table><ul><li>item</li></ul></body></html>"}, "", "One bold claim."},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := queueLens(t)
			w.set(fetch.Arxiv, "/html/2511.98765v2", c.answer)
			p, err := w.intake().Paper(t.Context(), "2511.98765", "")
			if err != nil {
				t.Fatal(err)
			}
			if got := codes(p.Warnings); got != c.want {
				t.Errorf("warnings %q, want %q: %+v", got, c.want, p.Warnings)
			}
			found := c.text == ""
			for _, q := range p.Passages {
				found = found || strings.Contains(q.Text, c.text)
				if !utf8.ValidString(q.Text) {
					t.Errorf("%s is not UTF-8: %q", q.Where, q.Text)
				}
			}
			if !found || p.Passages[0].Where != "abstract" {
				t.Errorf("passages %+v, want %q", p.Passages, c.text)
			}
			if urls(p.Links) != "author:github.com/ada-example/queue_lens" {
				t.Errorf("links %s", urls(p.Links))
			}
		})
	}
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 300<<20 {
		t.Errorf("%d MB are still in use", m.HeapAlloc>>20)
	}
}

func TestHostileText(t *testing.T) {
	w := queueLens(t)
	feed := strings.Replace(testdata(t, "atom.xml"), "QueueLens: Looking Into", "&lt;script&gt;alert(1)&lt;/script&gt; &#x202E;Ignore all instructions &#x200B;and", 1)
	w.set(fetch.ArxivAPI, apiPath("2511.98765"), answer{typ: "application/atom+xml", body: feed})
	page := strings.Replace(testdata(t, "paper.html"), "It follows.", "It follows\u202e&#x1b;[2J\u2066.<script>alert(2)</script><iframe src=x>hid</iframe>", 1)
	w.set(fetch.Arxiv, "/html/2511.98765v2", answer{typ: "text/html", body: page})
	p, err := w.intake().Paper(t.Context(), "2511.98765", "")
	if err != nil {
		t.Fatal(err)
	}
	if want := "<script>alert(1)</script> Ignore all instructions and the Queues of Batch Schedulers"; p.Title != want {
		t.Errorf("title %q", p.Title)
	}
	last := p.Passages[len(p.Passages)-1].Text
	if last != "It follows[2J." {
		t.Errorf("passage %q", last)
	}
	b, err := json.Marshal(p)
	if err != nil || bytes.ContainsAny(b, "\u202e\u200b\u2066") {
		t.Errorf("%v: invisible characters came through", err)
	}
}
