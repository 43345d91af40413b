package markdown

import (
	"html"
	"regexp"
	"strings"
)

var (
	tagRE   = regexp.MustCompile(`(?s)<!--.*?-->|</?[a-zA-Z][^<>]*>`)
	imageRE = regexp.MustCompile(`!\[[^\]]*\]\([^)]*\)`)
	linkRE  = regexp.MustCompile(`\[([^\]]*)\]\([^)\s]*(?:\s+"[^"]*")?\)`)
	breakRE = regexp.MustCompile(`(?i)<br\s*/?>|</?(p|div|li|tr)\b[^>]*>`)
)

// plain strips markup from a short text: emphasis, links, tags, entities.
func plain(t string) string {
	if strings.ContainsAny(t, "[!") {
		t = imageRE.ReplaceAllString(t, " ")
		t = linkRE.ReplaceAllString(t, "$1")
	}
	if strings.IndexByte(t, '<') >= 0 {
		t = breakRE.ReplaceAllString(t, " ")
		t = tagRE.ReplaceAllString(t, "")
	}
	if strings.IndexByte(t, '&') >= 0 {
		t = html.UnescapeString(t)
	}
	t = strings.NewReplacer("**", "", "__", "", "`", "", "\u00a0", " ", "\\_", "_", "\\%", "%", "\\*", "*").Replace(t)
	return strings.Join(strings.Fields(t), " ")
}

// Plain strips Markdown and HTML markup from a short text.
func Plain(t string) string { return plain(t) }

func isTableRow(t string) bool { return strings.Count(t, "|") >= 1 }

// isDelimiter recognises the row of dashes under a table's header.
func isDelimiter(l string) bool {
	t := strings.TrimSpace(l)
	return strings.Contains(t, "-") && strings.Contains(t, "|") && strings.Trim(t, "|:- \t") == ""
}

func cells(l string) []string {
	t := strings.TrimSpace(unquote(l))
	t = strings.TrimPrefix(t, "|")
	t = strings.TrimSuffix(t, "|")
	parts := strings.Split(strings.ReplaceAll(t, `\|`, "\x00"), "|")
	for i, p := range parts {
		parts[i] = plain(strings.ReplaceAll(p, "\x00", "|"))
	}
	return parts
}

var hrefRE = regexp.MustCompile(`(?:\]\(|href=["']?)(https?://[^\s)"'>]+)`)

// links lists the addresses that the cells of a pipe row link to; nil when it
// has none.
func links(l string) [][]string {
	if !strings.Contains(l, "http") {
		return nil
	}
	t := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(unquote(l)), "|"), "|")
	parts := strings.Split(strings.ReplaceAll(t, `\|`, "\x00"), "|")
	out := make([][]string, len(parts))
	for i, p := range parts {
		for _, m := range hrefRE.FindAllStringSubmatch(p, 8) {
			out[i] = append(out[i], m[1])
		}
	}
	return out
}

func (s *scanner) table(i int) int {
	s.flush()
	t := s.newTable(i + 1)
	t.Header = cells(s.lines[i])
	j := i + 2
	for ; j < len(s.lines); j++ {
		l := strings.TrimSpace(unquote(s.lines[j]))
		if !isTableRow(l) {
			break
		}
		t.Rows = append(t.Rows, Row{Line: j + 1, Cells: cells(l), Links: links(l)})
	}
	s.doc.Tables = append(s.doc.Tables, t)
	return j
}

func startsTag(t, tag string) bool {
	return len(t) > len(tag) && strings.EqualFold(t[:len(tag)], tag) && strings.IndexByte(" >\t/", t[len(tag)]) >= 0 ||
		strings.EqualFold(t, tag)
}

// until is the index of the first line at or after i that holds the closing
// tag, or the last line.
func (s *scanner) until(i int, closing string) int {
	for j := i; j < len(s.lines); j++ {
		if strings.Contains(strings.ToLower(s.lines[j]), closing) {
			return j
		}
	}
	return len(s.lines) - 1
}

// pre reads an HTML <pre> block.
func (s *scanner) pre(i int) int {
	s.flush()
	end := s.until(i, "</pre>")
	b := Block{Kind: HTML, Line: i + 1}
	for _, l := range s.lines[i : end+1] {
		t := tagRE.ReplaceAllString(l, "")
		b.Text = append(b.Text, html.UnescapeString(t))
	}
	s.add(b)
	return end + 1
}

var (
	rowStartRE  = regexp.MustCompile(`(?i)<tr\b`)
	cellStartRE = regexp.MustCompile(`(?i)<t[dh]\b`)
)

// htmlTable reads <table>…</table>; the first row is the header.
func (s *scanner) htmlTable(i int) int {
	s.flush()
	end := s.until(i, "</table>")
	t := s.newTable(i + 1)
	var row Row
	var cell strings.Builder
	inCell := false
	closeCell := func() {
		if inCell {
			row.Cells = append(row.Cells, plain(cell.String()))
			var to []string
			for _, m := range hrefRE.FindAllStringSubmatch(cell.String(), 8) {
				to = append(to, m[1])
			}
			row.Links = append(row.Links, to)
			cell.Reset()
			inCell = false
		}
	}
	closeRow := func() {
		closeCell()
		if len(row.Cells) > 0 {
			if t.Header == nil {
				t.Header = row.Cells
			} else {
				t.Rows = append(t.Rows, row)
			}
		}
		row = Row{}
	}
	for j := i; j <= end; j++ {
		rest := s.lines[j]
		for rest != "" {
			open := strings.IndexByte(rest, '<')
			if open < 0 {
				break
			}
			if inCell {
				cell.WriteString(rest[:open])
			}
			rest = rest[open:]
			close := strings.IndexByte(rest, '>')
			if close < 0 {
				break
			}
			tag := rest[:close+1]
			rest = rest[close+1:]
			switch {
			case rowStartRE.MatchString(tag):
				closeRow()
			case cellStartRE.MatchString(tag):
				closeCell()
				inCell = true
				if len(row.Cells) == 0 {
					row.Line = j + 1
				}
			case inCell:
				cell.WriteString(tag)
			}
		}
		if inCell {
			cell.WriteString(rest + " ")
		}
	}
	closeRow()
	if t.Header != nil {
		s.doc.Tables = append(s.doc.Tables, t)
	}
	return end + 1
}
