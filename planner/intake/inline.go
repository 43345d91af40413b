package intake

import (
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// inlineText renders an element as one line: formulas from their TeX, the
// target of a link behind its words where they do not show it, no footnotes.
// Where notes is not nil the footnotes are collected there.
func inlineText(n *html.Node, notes *[]captured) string {
	r := inliner{notes: notes}
	if hasClass(n, "ltx_note_content") || hasClass(n, "ltx_tag_note") {
		r.inNote = true
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		r.render(c)
	}
	return cleanText(r.b.String())
}

type inliner struct {
	b      strings.Builder
	notes  *[]captured
	inNote bool
}

// maxInline bounds the text of one element before it is cleaned, in bytes.
const maxInline = 1 << 16

func (r *inliner) render(n *html.Node) {
	if r.b.Len() > maxInline {
		return
	}
	switch n.Type {
	case html.TextNode:
		r.b.WriteString(n.Data)
		return
	case html.ElementNode:
	default:
		return
	}
	switch {
	case skipped(n):
		return
	case n.DataAtom == atom.Math || n.Data == "math":
		r.math(n)
		return
	case hasClass(n, "ltx_note"):
		if r.notes != nil {
			*r.notes = append(*r.notes, captured{n, r.b.String()})
		}
		return
	case hasClass(n, "ltx_note_mark"), r.inNote && hasClass(n, "ltx_tag_note", "ltx_note_type"):
		return
	case n.DataAtom == atom.A:
		r.anchor(n)
		return
	}
	if breaksText(n) {
		r.b.WriteByte(' ')
		defer r.b.WriteByte(' ')
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		r.render(c)
	}
}

func breaksText(n *html.Node) bool {
	switch n.DataAtom {
	case atom.Br, atom.P, atom.Div, atom.Td, atom.Th, atom.Tr, atom.Li, atom.Dt, atom.Dd, atom.H1, atom.H2, atom.H3, atom.H4, atom.H5, atom.H6, atom.Section, atom.Table, atom.Figcaption:
		return true
	}
	return hasClass(n, "ltx_p", "ltx_title", "ltx_personname", "ltx_contact", "ltx_role_affiliation", "ltx_bibblock", "ltx_tr", "ltx_td")
}

func (r *inliner) math(n *html.Node) {
	if alt := attr(n, "alttext"); alt != "" {
		r.b.WriteString(mathText(alt))
		return
	}
	for c := range n.Descendants() {
		if c.DataAtom == 0 && c.Type == html.ElementNode && strings.HasPrefix(c.Data, "annotation") {
			return // a formula without alttext: its text would appear twice
		}
		if c.Type == html.TextNode {
			r.b.WriteString(c.Data)
		}
	}
}

// anchor writes a link's words and, unless they already show it, its target.
// arXiv's own pages say "this https URL" in place of a link.
func (r *inliner) anchor(n *html.Node) {
	start := r.b.Len()
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		r.render(c)
	}
	href := strings.TrimSpace(attr(n, "href"))
	if !hasPrefixFold(href, "https://") && !hasPrefixFold(href, "http://") {
		return
	}
	words := cleanText(r.b.String()[start:])
	bare := strings.TrimSuffix(href[strings.Index(href, "://")+3:], "/")
	switch {
	case strings.Contains(strings.ReplaceAll(words, " ", ""), bare):
	case hasPrefixFold(words, "this http"):
		kept := r.b.String()[:start]
		r.b.Reset()
		r.b.WriteString(kept)
		r.b.WriteString(href)
	default:
		r.b.WriteString(" (" + href + ")")
	}
}
