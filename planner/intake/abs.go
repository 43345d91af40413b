package intake

import (
	"context"
	"regexp"
	"strings"
	"time"

	"github.com/gocolly/colly/v2"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/planner/target"
)

var (
	historyRE  = regexp.MustCompile(`\[v(\d{1,4})\]\s*(?:[A-Z][a-z]{2}, )?(\d{1,2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2})`)
	categoryRE = regexp.MustCompile(`\(([a-z-]+(?:\.[A-Za-z-]+)?)\)`)
)

// absPage is what the abstract page says.
type absPage struct {
	id, title, abstract, comment, journal, doi string
	authors, categories                        []string
	versions                                   []absVersion
	withdrawn                                  bool
}

type absVersion struct {
	name string // "v2"
	date time.Time
}

// readAbs reads the abstract page (arxiv-browse templates/abs/abs.html): the
// citation_* tags in the head, the table of metadata and the history.
func readAbs(e *colly.HTMLElement) absPage {
	var p absPage
	text := func(selector string) string {
		sel := e.DOM.Find(selector).First()
		if len(sel.Nodes) == 0 {
			return ""
		}
		return inlineText(sel.Nodes[0], nil)
	}
	meta := func(name string) string {
		return cleanText(e.ChildAttr(`meta[name="`+name+`"]`, "content"))
	}
	p.id = meta("citation_arxiv_id")
	if p.title = meta("citation_title"); p.title == "" {
		p.title = trimLabel(text("h1.title"), "Title:")
	}
	for _, name := range e.ChildAttrs(`meta[name="citation_author"]`, "content") {
		if family, given, ok := strings.Cut(name, ","); ok {
			name = given + " " + family
		}
		p.authors = append(p.authors, name)
	}
	p.authors = joinAuthors(p.authors)
	if p.abstract = trimLabel(text("blockquote.abstract"), "Abstract:"); p.abstract == "" {
		p.abstract = meta("citation_abstract")
	}
	p.comment = text("td.comments")
	p.journal = text("td.jref")
	p.doi = meta("citation_doi")
	for _, m := range categoryRE.FindAllStringSubmatch(text("td.subjects"), 40) {
		p.categories = append(p.categories, m[1])
	}
	history := text(".submission-history")
	for _, m := range historyRE.FindAllStringSubmatch(history, 200) {
		if at, err := time.Parse("2 Jan 2006 15:04:05", m[2]); err == nil {
			p.versions = append(p.versions, absVersion{"v" + m[1], at.UTC()})
		}
	}
	p.withdrawn = strings.Contains(text("span.error"), "withdrawn")
	return p
}

func trimLabel(s, label string) string {
	if hasPrefixFold(s, label) {
		s = s[len(label):]
	}
	return strings.TrimSpace(s)
}

// abs fills the paper from its abstract page.
func (in *Intake) abs(ctx context.Context, r *reading, id, version string) error {
	var a absPage
	var from page
	err := in.collect(ctx, "/abs/"+id+version, func(p page, e *colly.HTMLElement) {
		from, a = p, readAbs(e)
	})
	if isNotFound(err) {
		return &NotFoundError{What: "paper " + id + version + " on arXiv", URL: "https://arxiv.org/abs/" + id, Fix: "check the id at https://arxiv.org/abs/" + id}
	}
	if err != nil {
		return err
	}
	gotID, _, err := target.ParseArXiv(a.id)
	if err != nil || gotID != id || a.title == "" || len(a.versions) == 0 {
		return &AnswerError{URL: from.url, Reason: "a page that is not the abstract of " + id + version, Excerpt: shorten(a.title, 100)}
	}
	at := a.versions[len(a.versions)-1]
	if version != "" {
		known := false
		for _, v := range a.versions {
			if v.name == version {
				at, known = v, true
			}
		}
		if !known {
			return &NotFoundError{What: "version " + version + " of paper " + id, URL: from.url, Fix: "the newest version is " + id + at.name}
		}
	}
	src := from.source()
	p := r.paper
	p.ID, p.Version, p.Title, p.Abstract, p.Comment = id, at.name, a.title, a.abstract, a.comment
	p.Authors, p.Categories = a.authors, a.categories
	p.Published, p.Updated = &a.versions[0].date, &at.date
	p.Evidence = []spec.Evidence{src.evidence("meta[name=citation_title]", p.Title)}
	r.fact("arxiv_version", at.name, src.evidence(".submission-history", ""))
	r.fact("journal_ref", a.journal, src.evidence("td.jref", a.journal))
	r.fact("doi", a.doi, src.evidence("meta[name=citation_doi]", a.doi))
	if a.withdrawn && !withdrawnRE.MatchString(p.Comment) {
		r.warn("withdrawn", "the abstract page says that the paper was withdrawn", src.evidence("span.error", ""))
	}
	return nil
}
