package intake

import (
	"fmt"
	"regexp"
	"strings"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// The walk follows the HTML that LaTeXML makes (brucemiller/LaTeXML
// lib/LaTeXML/resources/XSLT: section.ltx_section, p.ltx_p, figure.ltx_table,
// span.ltx_note, li.ltx_bibitem) and falls back on plain HTML elements where a
// page has no such classes.

// block is a piece of a page in reading order.
type block struct {
	where   string // "section 3.1 ¶2"
	id      string // of the element, for a fragment
	field   string // CSS selector
	text    string
	context string // footnotes: the sentence that the mark stands in
	zone    zone
	kind    blockKind
}

type blockKind int

const (
	paragraph blockKind = iota
	abstract
	table
	caption
	footnote
	reference
	front // title and authors
)

const (
	maxBlocks    = 5000
	maxParagraph = 4000  // bytes
	maxTable     = 16000 // bytes
)

// document is what a page holds.
type document struct {
	blocks  []block
	latexml bool // the page was made by LaTeXML
	noHTML  bool // the page says that there is no HTML of the paper
	cut     bool // something was left out by the caps
}

type walker struct {
	doc             *document
	section         string // "section 3.1"
	zone            zone
	sections        int // first-level sections seen
	paras           map[string]int
	tables, figures int
	footnotes       int
}

var noHTMLRE = regexp.MustCompile(`(?i)\bno html (?:for|is available)\b|\bhtml is not available\b`)

// readDocument walks a parsed page.
func readDocument(root *html.Node) *document {
	w := &walker{doc: &document{}, paras: map[string]int{}, section: "page", zone: zoneFront}
	w.walk(root)
	text := 0
	for _, b := range w.doc.blocks {
		if b.kind == paragraph {
			text++
		}
	}
	if !w.doc.latexml && text < 8 {
		for _, b := range w.doc.blocks {
			w.doc.noHTML = w.doc.noHTML || noHTMLRE.MatchString(b.text)
		}
	}
	return w.doc
}

func (w *walker) add(b block, n *html.Node) {
	limit := maxParagraph
	if b.kind == table {
		limit = maxTable
	}
	if len(b.text) > limit {
		b.text, w.doc.cut = shorten(b.text, limit), true
	}
	if b.text == "" {
		return
	}
	if len(w.doc.blocks) >= maxBlocks {
		w.doc.cut = true
		return
	}
	if b.id = elementID(n); b.id == "" && n.Parent != nil {
		b.id = elementID(n.Parent)
	}
	w.doc.blocks = append(w.doc.blocks, b)
}

var fragmentRE = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._:-]{0,99}$`)

func elementID(n *html.Node) string {
	if id := attr(n, "id"); fragmentRE.MatchString(id) {
		return id
	}
	return ""
}

// skipped are elements that hold no text of the paper.
func skipped(n *html.Node) bool {
	switch n.DataAtom {
	case atom.Script, atom.Style, atom.Template, atom.Noscript, atom.Nav, atom.Button, atom.Form, atom.Svg, atom.Iframe, atom.Head, atom.Select, atom.Textarea:
		return true
	}
	return hasClass(n, "ltx_TOC", "ltx_page_navbar", "ltx_page_header", "ltx_page_footer", "ltx_pagination", "ltx_rdf", "ltx_ERROR", "package-alerts", "ltx_dates", "ltx_listing")
}

func (w *walker) children(n *html.Node) {
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		w.walk(c)
	}
}

func (w *walker) walk(n *html.Node) {
	if n.Type == html.DocumentNode {
		w.children(n)
		return
	}
	if n.Type != html.ElementNode || skipped(n) || len(w.doc.blocks) >= maxBlocks {
		return
	}
	switch {
	case hasClass(n, "ltx_document"):
		w.doc.latexml = true
		w.children(n)
	case hasClass(n, "ltx_title_document"), n.DataAtom == atom.H1:
		w.paragraph(n, block{where: "title", field: "h1", zone: zoneFront, kind: front})
	case hasClass(n, "ltx_authors"):
		w.paragraph(n, block{where: "authors", field: ".ltx_authors", zone: zoneFront, kind: front})
	case hasClass(n, "ltx_abstract"):
		w.paragraph(n, block{where: "abstract", field: ".ltx_abstract", zone: zoneAbstract, kind: abstract})
	case hasClass(n, "ltx_bibliography"):
		w.bibliography(n)
	case hasClass(n, "ltx_section", "ltx_subsection", "ltx_subsubsection", "ltx_appendix", "ltx_chapter", "ltx_acknowledgements"):
		w.sectionOf(n)
	case hasClass(n, "ltx_equation", "ltx_equationgroup", "ltx_eqn_table"):
	case n.DataAtom == atom.Figure, hasClass(n, "ltx_float"):
		w.figure(n)
	case n.DataAtom == atom.Table, hasClass(n, "ltx_tabular"):
		w.table(n)
	case hasClass(n, "ltx_title"), n.DataAtom == atom.H2, n.DataAtom == atom.H3, n.DataAtom == atom.H4, n.DataAtom == atom.H5, n.DataAtom == atom.H6:
	case n.DataAtom == atom.P, hasClass(n, "ltx_p"), n.DataAtom == atom.Li && !hasBlock(n), n.DataAtom == atom.Blockquote && !hasBlock(n), n.DataAtom == atom.Dd && !hasBlock(n):
		w.paras[w.section]++
		w.paragraph(n, block{where: fmt.Sprintf("%s ¶%d", w.section, w.paras[w.section]), field: "p", zone: w.zone, kind: paragraph})
	case hasClass(n, "ltx_note"):
		w.note(n, "")
	default:
		w.children(n)
	}
}

// hasBlock reports whether an element holds paragraphs of its own.
func hasBlock(n *html.Node) bool {
	for c := range n.Descendants() {
		if c.Type == html.ElementNode && (c.DataAtom == atom.P || c.DataAtom == atom.Table || c.DataAtom == atom.Li || hasClass(c, "ltx_p", "ltx_tabular")) {
			return true
		}
	}
	return false
}

// sectionOf enters a section. Its name is the number in its heading, or the
// heading where there is none.
func (w *walker) sectionOf(n *html.Node) {
	oldSection, oldZone := w.section, w.zone
	defer func() { w.section, w.zone = oldSection, oldZone }()
	if hasClass(n, "ltx_section", "ltx_chapter") {
		w.sections++
	}
	w.zone = zoneBody
	if w.sections <= 1 && !hasClass(n, "ltx_appendix", "ltx_acknowledgements") {
		w.zone = zoneIntro
	}
	w.section = sectionName(n)
	w.children(n)
}

func sectionName(n *html.Node) string {
	word := "section"
	if hasClass(n, "ltx_appendix") {
		word = "appendix"
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		if !hasClass(c, "ltx_title") {
			continue
		}
		for t := range c.Descendants() {
			if hasClass(t, "ltx_tag") {
				tag := strings.Trim(inlineText(t, nil), " .:")
				if rest, ok := strings.CutPrefix(tag, "Appendix "); ok {
					return "appendix " + rest
				}
				if tag != "" {
					return word + " " + shorten(tag, 20)
				}
			}
		}
		if t := inlineText(c, nil); t != "" {
			return word + " “" + shorten(t, 60) + "”"
		}
	}
	if hasClass(n, "ltx_acknowledgements") {
		return "acknowledgements"
	}
	return word
}

// captured is a footnote met inside of a text.
type captured struct {
	node   *html.Node
	before string // the text up to its mark
}

// paragraph adds a text and then its footnotes.
func (w *walker) paragraph(n *html.Node, b block) {
	var notes []captured
	b.text = inlineText(n, &notes)
	if b.kind == abstract {
		b.text = trimLabel(b.text, "Abstract")
		b.text = strings.TrimLeft(b.text, ".: ")
	}
	w.add(b, n)
	zone := w.zone
	w.zone = b.zone
	for _, note := range notes {
		w.note(note.node, lastSentence(note.before))
	}
	w.zone = zone
}

func (w *walker) note(n *html.Node, context string) {
	if !hasClass(n, "ltx_role_footnote", "ltx_role_thanks", "ltx_role_footnotetext", "ltx_role_endnote", "ltx_role_note") {
		return
	}
	w.footnotes++
	label := fmt.Sprintf("footnote %d", w.footnotes)
	if hasClass(n, "ltx_role_thanks") {
		w.footnotes--
		label = "note of the title page"
	}
	for c := range n.Descendants() {
		if hasClass(c, "ltx_tag_note") {
			if tag := inlineText(c, nil); tag != "" {
				label = "footnote " + shorten(tag, 10)
			}
			break
		}
	}
	w.add(block{where: label, field: ".ltx_note_content", text: noteText(n), context: context, zone: w.zone, kind: footnote}, n)
}

// noteText is the content of a footnote without its marks.
func noteText(n *html.Node) string {
	for c := range n.Descendants() {
		if hasClass(c, "ltx_note_content") {
			return inlineText(c, nil)
		}
	}
	return inlineText(n, nil)
}

func lastSentence(s string) string {
	s = cleanText(s)
	if len(s) > 400 {
		s = s[len(s)-400:]
		_, s, _ = strings.Cut(s, " ")
	}
	trimmed := strings.TrimRight(s, " .!?")
	if at := sentenceEnd.FindAllStringIndex(trimmed, -1); at != nil {
		return s[at[len(at)-1][1]-1:]
	}
	return s
}

func (w *walker) bibliography(n *html.Node) {
	i := 0
	for c := range n.Descendants() {
		if hasClass(c, "ltx_bibitem") {
			i++
			w.add(block{where: fmt.Sprintf("reference %d", i), field: ".ltx_bibitem", text: inlineText(c, nil), zone: zoneReferences, kind: reference}, c)
		}
	}
}

var captionRE = regexp.MustCompile(`(?i)^(table|figure|fig\.|algorithm|listing|box)\s*([A-Z]?\.?\d+(?:\.\d+)*|[IVXL]+)`)

// figure adds the caption of a figure and, where it holds one, its table.
func (w *walker) figure(n *html.Node) {
	var title *html.Node
	var tables, panels []*html.Node
	var find func(*html.Node)
	find = func(c *html.Node) {
		switch {
		case c.Type != html.ElementNode || skipped(c):
		case c.DataAtom == atom.Figcaption || hasClass(c, "ltx_caption"):
			if title == nil {
				title = c
			}
		case c.DataAtom == atom.Figure && hasClass(c, "ltx_figure", "ltx_table") && !hasClass(c, "ltx_figure_panel"):
			panels = append(panels, c)
		case (c.DataAtom == atom.Table || hasClass(c, "ltx_tabular")) && !hasClass(c, "ltx_equation", "ltx_eqn_table"):
			tables = append(tables, c)
		default:
			for d := c.FirstChild; d != nil; d = d.NextSibling {
				find(d)
			}
		}
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		find(c)
	}
	text := ""
	var notes []captured
	if title != nil {
		text = inlineText(title, &notes)
	}
	label := ""
	if m := captionRE.FindStringSubmatch(text); m != nil {
		label = strings.Replace(strings.ToLower(m[1]), "fig.", "figure", 1) + " " + m[2]
	}
	if len(tables) > 0 {
		if label == "" {
			w.tables++
			label = fmt.Sprintf("table %d", w.tables)
		}
		var lines []string
		if text != "" {
			lines = append(lines, text)
		}
		for _, t := range tables {
			lines = append(lines, rows(t)...)
		}
		w.add(block{where: label, field: "figure.ltx_table", text: strings.Join(lines, "\n"), zone: w.bodyZone(), kind: table}, n)
	} else if text != "" {
		if label == "" {
			w.figures++
			label = fmt.Sprintf("figure %d", w.figures)
		}
		w.add(block{where: label + " caption", field: "figcaption", text: text, zone: w.bodyZone(), kind: caption}, n)
	}
	for _, note := range notes {
		w.note(note.node, lastSentence(note.before))
	}
	for _, p := range panels {
		w.figure(p)
	}
}

// bodyZone is the zone of floats: those before the first section (teasers) are
// no front matter.
func (w *walker) bodyZone() zone {
	if w.zone == zoneFront {
		return zoneIntro
	}
	return w.zone
}

// table adds a table that stands outside of a figure.
func (w *walker) table(n *html.Node) {
	lines := rows(n)
	if len(lines) == 0 {
		return
	}
	w.tables++
	w.add(block{where: fmt.Sprintf("%s table %d", w.section, w.tables), field: "table", text: strings.Join(lines, "\n"), zone: w.bodyZone(), kind: table}, n)
}

// rows renders a table with one line per row and " | " between cells. Cells of
// several columns stay one cell.
func rows(n *html.Node) []string {
	var out []string
	var row func(*html.Node)
	row = func(c *html.Node) {
		if c.Type != html.ElementNode || skipped(c) {
			return
		}
		if c.DataAtom != atom.Tr && !hasClass(c, "ltx_tr") {
			for d := c.FirstChild; d != nil; d = d.NextSibling {
				row(d)
			}
			return
		}
		var cells []string
		filled := false
		for d := c.FirstChild; d != nil; d = d.NextSibling {
			if d.Type == html.ElementNode && (d.DataAtom == atom.Td || d.DataAtom == atom.Th || hasClass(d, "ltx_td", "ltx_th")) {
				cell := strings.ReplaceAll(inlineText(d, &[]captured{}), "|", "¦")
				filled = filled || cell != ""
				cells = append(cells, cell)
			}
		}
		if filled && len(out) < 500 {
			out = append(out, strings.Join(cells, " | "))
		}
	}
	row(n)
	return out
}
