package intake

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/net/html"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/spec"
)

func safeText(t *testing.T, what, s string) {
	t.Helper()
	if !utf8.ValidString(s) {
		t.Errorf("%s is not UTF-8: %q", what, s)
	}
	for line := range strings.SplitSeq(s, "\n") {
		for cell := range strings.SplitSeq(line, " | ") {
			if cleanText(cell) != cell {
				t.Errorf("%s is not clean: %q", what, s)
			}
		}
	}
}

func safeEvidence(t *testing.T, ev []spec.Evidence) {
	t.Helper()
	for _, e := range ev {
		safeText(t, "quote", e.Quote)
		if len(e.Quote) > maxQuote {
			t.Errorf("quote of %d bytes", len(e.Quote))
		}
	}
}

func FuzzAtom(f *testing.F) {
	for _, name := range []string{"atom.xml", "atom_error.xml", "atom_unknown.xml"} {
		f.Add("application/atom+xml", []byte(testdata(f, name)))
	}
	f.Add("text/plain", []byte("Rate exceeded."))
	f.Add("text/html", []byte("<html></html>"))
	f.Add("", []byte("\xef\xbb\xbf<feed xmlns=\"http://www.w3.org/2005/Atom\"><entry><id>http://arxiv.org/abs/hep-th/9901001v1</id><title>t</title></entry></feed>"))
	f.Add("", []byte(`<?xml version="1.0" encoding="ISO-8859-1"?><feed xmlns="http://www.w3.org/2005/Atom"/>`))
	f.Fuzz(func(t *testing.T, typ string, body []byte) {
		e, err := parseAtom("http://a.test/", typ, body)
		var answer *AnswerError
		var slow *ThrottledError
		switch {
		case (e == nil) == (err == nil):
			t.Fatalf("entry %v, error %v", e, err)
		case err == nil:
			if cleanText(e.Title) == "" || !strings.Contains(e.ID, "/abs/") {
				t.Errorf("entry %+v is unusable", e)
			}
		case errors.As(err, &answer):
			safeText(t, "error", err.Error())
		case !errors.As(err, &slow) && !errors.Is(err, errNoEntry):
			t.Errorf("error %T", err)
		}
	})
}

func FuzzDocument(f *testing.F) {
	f.Add(testdata(f, "paper.html"))
	f.Add(testdata(f, "abs.html"))
	f.Add(`<p>a<span class="ltx_note ltx_role_footnote"><span class="ltx_note_content"><a href="https://github.com/a/b">x</a></span></span>`)
	f.Add(`<figure class="ltx_table"><figcaption>Table IV: x</figcaption><span class="ltx_tabular"><span class="ltx_tr"><span class="ltx_td">1|2</span></span></span></figure>`)
	f.Add(`<math alttext="\frac{1}{2}\times"><mi>x</mi></math><table><tr><td><table><tr><td>n</td></tr></table></td></tr></table>`)
	f.Fuzz(func(t *testing.T, page string) {
		root, err := html.Parse(strings.NewReader(page))
		if err != nil {
			return
		}
		doc := readDocument(root)
		var links linkSet
		for _, b := range doc.blocks {
			if b.text == "" || b.where == "" || len(b.text) > maxTable {
				t.Errorf("block %+v", b)
			}
			safeText(t, "text", b.text)
			safeText(t, "where", b.where)
			links.text(b.text, place{where: b.where, zone: b.zone, context: b.context})
		}
		if len(doc.blocks) > maxBlocks {
			t.Errorf("%d blocks", len(doc.blocks))
		}
		stated, mentions := links.ranked(func(*link) {})
		for _, c := range append(stated, mentions...) {
			if _, ok := repository(c.URL); !ok {
				t.Errorf("link %q is no repository", c.URL)
			}
			safeEvidence(t, c.Evidence)
		}
	})
}

func FuzzHub(f *testing.F) {
	f.Add([]byte(modelAPI), []byte(modelConfig))
	f.Add([]byte(`{"id":"gpt2","gated":"auto","siblings":[{"rfilename":"../x"},{"rfilename":"pytorch_model.bin","size":-1}]}`), []byte(`{"auto_map":{"a":"b"}}`))
	f.Add([]byte(`{"id":5,"tags":"x","cardData":{"license":["a","b"],"base_model":7}}`), []byte(`[]`))
	f.Fuzz(func(t *testing.T, description, config []byte) {
		var j modelJSON
		if err := decodeJSON("http://hf.test/", description, &j); err != nil {
			var answer *AnswerError
			if !errors.As(err, &answer) {
				t.Fatalf("error %T", err)
			}
			return
		}
		m := &Model{Access: "open"}
		(&Intake{}).describe(m, &j, source{}, "org/name")
		read := func(string, int64) ([]byte, source, error) { return config, source{}, nil }
		if err := m.config(read); err != nil {
			t.Fatal(err)
		}
		m.checkIndex(read)
		for _, s := range append([]string{m.ID, m.Task, m.Licence, m.Revision}, m.Base...) {
			safeText(t, "field", s)
		}
		for _, fact := range m.Facts {
			safeText(t, fact.Name, fact.Value)
			safeEvidence(t, fact.Evidence)
		}
		for _, w := range m.Warnings {
			safeText(t, w.Code, w.Message)
		}
		for _, file := range m.Files {
			if !plainPath(file.Path) || file.Size < 0 {
				t.Errorf("file %+v", file)
			}
		}
	})
}

func FuzzPlainTeX(f *testing.F) {
	for _, s := range []string{`$31$--$42\%$`, `\href{a}{b} \textbf{x`, `~30% Fig.~2`, `\url{https://github.com/a/b\_c}`, `{{{}}}`, `$$$`, `\(\)`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		safeText(t, "text", plainTeX(s))
		safeText(t, "math", cleanText(mathText(s)))
		var links linkSet
		links.text(plainTeX(s), place{zone: zoneAbstract})
	})
}

// bigPage repeats the sections of the fixture until the page has n bytes.
func bigPage(b *testing.B, n int) string {
	page := testdata(b, "paper.html")
	from, to := strings.Index(page, `<section class="ltx_section" id="S2">`), strings.Index(page, `<section class="ltx_section" id="Sx1">`)
	return page[:from] + strings.Repeat(page[from:to], n/(to-from)) + page[to:]
}

func BenchmarkDocument(b *testing.B) {
	page := bigPage(b, 2<<20)
	b.SetBytes(int64(len(page)))
	b.ReportAllocs()
	for b.Loop() {
		root, err := html.Parse(strings.NewReader(page))
		if err != nil {
			b.Fatal(err)
		}
		if doc := readDocument(root); len(doc.blocks) < 100 {
			b.Fatal(len(doc.blocks))
		}
	}
}

func BenchmarkLinks(b *testing.B) {
	root, err := html.Parse(strings.NewReader(bigPage(b, 2<<20)))
	if err != nil {
		b.Fatal(err)
	}
	doc := readDocument(root)
	n := 0
	for _, k := range doc.blocks {
		n += len(k.text)
	}
	b.SetBytes(int64(n))
	for b.Loop() {
		var s linkSet
		for _, k := range doc.blocks {
			s.text(k.text, place{where: k.where, zone: k.zone, context: k.context})
		}
		if len(s.list) == 0 {
			b.Fatal("no links")
		}
	}
}

func BenchmarkAtom(b *testing.B) {
	body := []byte(testdata(b, "atom.xml"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseAtom("", "application/atom+xml", body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPaper reads a paper of half a megabyte out of a mirror.
func BenchmarkPaper(b *testing.B) {
	dir := b.TempDir()
	for name, body := range map[string]string{
		"export.arxiv.org/api/query@id_list=2511.98765&max_results=1": testdata(b, "atom.xml"),
		"arxiv.org/html/2511.98765v2":                                 bigPage(b, 500<<10),
	} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(body), 0o644)); err != nil {
			b.Fatal(err)
		}
	}
	c, err := fetch.New(fetch.Config{CacheDir: b.TempDir(), Mirror: dir})
	if err != nil {
		b.Fatal(err)
	}
	in := New(Config{Client: c})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := in.Paper(b.Context(), "2511.98765", ""); err != nil {
			b.Fatal(err)
		}
	}
}
