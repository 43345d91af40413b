package intake

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/html/charset"

	"github.com/repromill/repromill/planner/fetch"
	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
)

// maxFeed caps an answer of the API about one paper, in bytes.
const maxFeed = 4 << 20

// The Atom dialect of arXiv's API (arxiv-docs source/help/api/user-manual.md).
type atomFeed struct {
	XMLName xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	Entries []atomEntry `xml:"http://www.w3.org/2005/Atom entry"`
}

type atomEntry struct {
	ID        string `xml:"http://www.w3.org/2005/Atom id"`
	Title     string `xml:"http://www.w3.org/2005/Atom title"`
	Summary   string `xml:"http://www.w3.org/2005/Atom summary"`
	Published string `xml:"http://www.w3.org/2005/Atom published"` // of version 1
	Updated   string `xml:"http://www.w3.org/2005/Atom updated"`   // of this version
	Authors   []struct {
		Name string `xml:"http://www.w3.org/2005/Atom name"`
	} `xml:"http://www.w3.org/2005/Atom author"`
	Categories []struct {
		Term string `xml:"term,attr"`
	} `xml:"http://www.w3.org/2005/Atom category"`
	Primary struct {
		Term string `xml:"term,attr"`
	} `xml:"http://arxiv.org/schemas/atom primary_category"`
	Comment string `xml:"http://arxiv.org/schemas/atom comment"`
	Journal string `xml:"http://arxiv.org/schemas/atom journal_ref"`
	DOI     string `xml:"http://arxiv.org/schemas/atom doi"`
}

// errNoEntry is a feed without a usable entry: arXiv's answer for an id it
// does not know.
var errNoEntry = errors.New("the feed has no entry for it")

// parseAtom reads the answer about one paper. arXiv answers errors with status
// 200: as an entry whose id is …/api/errors#…, as the plain text "Rate
// exceeded.", or as a web page of something in between.
//
// Errors: errNoEntry, [*ThrottledError], [*AnswerError].
func parseAtom(from, contentType string, body []byte) (*atomEntry, error) {
	head := bytes.TrimSpace(bytes.TrimPrefix(body[:min(len(body), 1024)], []byte("\xef\xbb\xbf")))
	lower := bytes.ToLower(head)
	excerpt := shorten(cleanText(string(head)), 120)
	switch {
	case bytes.HasPrefix(lower, []byte("rate exceeded")):
		return nil, &ThrottledError{URL: from, Reason: "Rate exceeded."}
	case len(head) == 0:
		return nil, &AnswerError{URL: from, Reason: "nothing", Transient: true}
	case bytes.HasPrefix(lower, []byte("<!doctype html")), bytes.HasPrefix(lower, []byte("<html")),
		strings.HasPrefix(contentType, "text/html"):
		return nil, &AnswerError{URL: from, Reason: "a web page in place of a feed", Excerpt: excerpt, Transient: true}
	case head[0] != '<':
		return nil, &AnswerError{URL: from, Reason: "text in place of a feed", Excerpt: excerpt, Transient: true}
	}
	var feed atomFeed
	d := xml.NewDecoder(bytes.NewReader(body))
	d.CharsetReader = func(label string, r io.Reader) (io.Reader, error) { return charset.NewReaderLabel(label, r) }
	if err := d.Decode(&feed); err != nil {
		return nil, &AnswerError{URL: from, Reason: "a feed that cannot be read (" + shorten(cleanText(err.Error()), 100) + ")", Excerpt: excerpt, Transient: true}
	}
	for i := range feed.Entries {
		e := &feed.Entries[i]
		e.ID = strings.TrimSpace(e.ID)
		if _, code, ok := strings.Cut(e.ID, "/api/errors#"); ok {
			if strings.Contains(code, "incorrect_id_format") {
				return nil, errNoEntry
			}
			return nil, &AnswerError{URL: from, Reason: "an error", Excerpt: shorten(cleanText(e.Summary), 200)}
		}
		if cleanText(e.Title) != "" && strings.Contains(e.ID, "/abs/") {
			return e, nil
		}
	}
	return nil, errNoEntry
}

// askAPI asks for one id, with a version or without.
func (in *Intake) askAPI(ctx context.Context, idv string) (*atomEntry, source, error) {
	u, err := in.client.URL(fetch.ArxivAPI, "/api/query", url.Values{"id_list": {idv}, "max_results": {"1"}})
	if err != nil {
		return nil, source{}, err
	}
	read := func(res *fetch.Response) (*atomEntry, error) {
		return parseAtom(u, res.Header.Get("Content-Type"), res.Body)
	}
	res, err := in.client.Get(ctx, fetch.Request{URL: u, Accept: "application/atom+xml", MaxBytes: maxFeed, Check: func(res *fetch.Response) error {
		// Only what can change with another try is kept out of the cache.
		if _, err := read(res); errors.Is(err, fetch.ErrTransient) {
			return err
		}
		return nil
	}})
	if err != nil {
		return nil, source{}, throttled(err)
	}
	e, err := read(res)
	return e, source{url: u, hash: res.SHA256}, err
}

// api fills the paper from arXiv's API.
func (in *Intake) api(ctx context.Context, r *reading, id, version string) error {
	e, src, err := in.askAPI(ctx, id+version)
	if errors.Is(err, errNoEntry) {
		return in.missing(ctx, id, version)
	}
	if err != nil {
		return err
	}
	gotID, gotVersion, err := target.ParseArXiv(e.ID[strings.Index(e.ID, "/abs/")+len("/abs/"):])
	if err != nil || gotID != id || gotVersion == "" || version != "" && gotVersion != version {
		return &AnswerError{URL: src.url, Reason: fmt.Sprintf("an entry about another paper than %s%s", id, version), Excerpt: shorten(cleanText(e.ID), 100)}
	}
	p := r.paper
	p.ID, p.Version = gotID, gotVersion
	p.Title = cleanText(e.Title)
	p.Abstract = cleanText(e.Summary)
	p.Comment = cleanText(e.Comment)
	p.Published, p.Updated = atomTime(e.Published), atomTime(e.Updated)
	var names []string
	for _, a := range e.Authors {
		names = append(names, a.Name)
	}
	p.Authors = joinAuthors(names)
	if t := cleanText(e.Primary.Term); t != "" {
		p.Categories = append(p.Categories, t)
	}
	for _, c := range e.Categories {
		if t := cleanText(c.Term); t != "" && t != cleanText(e.Primary.Term) {
			p.Categories = append(p.Categories, t)
		}
	}
	p.Evidence = []spec.Evidence{src.evidence("feed/entry", p.Title)}
	r.fact("arxiv_version", gotVersion, src.evidence("feed/entry/id", e.ID))
	r.fact("journal_ref", cleanText(e.Journal), src.evidence("feed/entry/arxiv:journal_ref", cleanText(e.Journal)))
	r.fact("doi", cleanText(e.DOI), src.evidence("feed/entry/arxiv:doi", cleanText(e.DOI)))
	return nil
}

// missing explains why there is no entry. For a version that does not exist it
// asks once more, to name the one that does.
func (in *Intake) missing(ctx context.Context, id, version string) error {
	e := &NotFoundError{What: "paper " + id + " on arXiv", URL: "https://arxiv.org/abs/" + id, Fix: "check the id at https://arxiv.org/abs/" + id}
	if version == "" {
		return e
	}
	if latest, _, err := in.askAPI(ctx, id); err == nil {
		if _, v, err := target.ParseArXiv(latest.ID[strings.Index(latest.ID, "/abs/")+len("/abs/"):]); err == nil && v != "" {
			return &NotFoundError{What: "version " + version + " of paper " + id, URL: e.URL, Fix: "the newest version is " + id + v}
		}
	}
	e.What = "paper " + id + version + " on arXiv"
	return e
}

func atomTime(s string) *time.Time {
	t, err := time.Parse(time.RFC3339, strings.TrimSpace(s))
	if err != nil {
		return nil
	}
	t = t.UTC()
	return &t
}

func statusText(n int) string { return strings.TrimSpace(fmt.Sprintf("%d %s", n, http.StatusText(n))) }
