package inspect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/repromill/repromill/planner/inspect/markdown"
)

func (r *reader) notebooks() error {
	paths := r.byDepth(maxNotebooks, func(_, _, ext string) bool { return ext == ".ipynb" })
	for _, p := range paths {
		b, cut, err := r.bytes(p, r.cfg.MaxNotebookBytes)
		if ctxErr := r.ctx.Err(); ctxErr != nil {
			return ctxErr
		}
		if err != nil {
			r.facts.warn("unreadable", fmt.Sprintf("%s cannot be read: %v", p, err))
			continue
		}
		if cut {
			r.facts.warn("cut_off", fmt.Sprintf("%s is longer than %d bytes; its last cells were not read", p, len(b)))
		}
		d, err := ReadNotebook(b)
		if err != nil && !cut {
			r.facts.warn("broken_notebook", fmt.Sprintf("%s: %v; what stands before was read", p, err))
		}
		d.Path = p
		r.facts.cells[p] = code(d.Doc)
		r.facts.Docs = append(r.facts.Docs, *d)
	}
	return nil
}

// code joins the code cells of a notebook, without shell and magic lines.
func code(d *markdown.Doc) string {
	var b strings.Builder
	for _, block := range d.Blocks {
		for _, l := range block.Text {
			if t := strings.TrimSpace(l); !strings.HasPrefix(t, "!") && !strings.HasPrefix(t, "%") {
				b.WriteString(l + "\n")
			}
		}
	}
	return b.String()
}

// maxCellText bounds the text that is kept of one cell or output.
const maxCellText = 64 << 10

// ReadNotebook reads an nbformat 3 or 4 document: code cells as blocks, prose
// cells as Markdown, stored text outputs as output. Lines are those of the
// file itself. What was read before a syntax error is returned with it.
func ReadNotebook(b []byte) (*Document, error) {
	n := &notebook{src: b, dec: json.NewDecoder(bytes.NewReader(b)), doc: &markdown.Doc{}}
	for i, c := range b {
		if c == '\n' {
			n.breaks = append(n.breaks, int64(i))
		}
	}
	d := &Document{Notebook: true, Doc: n.doc}
	err := n.value("", 0)
	d.Commands, _ = n.doc.Shell(nil)
	d.Outputs = n.outs
	sort.SliceStable(d.Doc.Headings, func(i, j int) bool { return d.Doc.Headings[i].Line < d.Doc.Headings[j].Line })
	return d, err
}

type notebook struct {
	src    []byte
	dec    *json.Decoder
	breaks []int64
	doc    *markdown.Doc
	outs   []markdown.Output
	cell   cell
	stream string // name of the output stream that is being read
}

type cell struct {
	kind   string
	source []line
	out    []line
	html   []line // output as HTML, such as the table of a data frame
}

type line struct {
	text string
	at   int
}

func (n *notebook) lineNow() int {
	off := n.dec.InputOffset()
	return sort.Search(len(n.breaks), func(i int) bool { return n.breaks[i] >= off }) + 1
}

var errDeep = errors.New("nested too deeply")

// value walks one JSON value; key is the member name it stands under. Only
// strings below "source", "input", "text", "text/plain" and "text/html" are
// kept, so images stored in outputs cost nothing but their decoding. What a
// cell wrote to its error stream is progress and complaints, and is left out.
func (n *notebook) value(key string, depth int) error {
	if depth > 200 {
		return errDeep
	}
	t, err := n.dec.Token()
	if err != nil {
		return err
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '[' {
			for n.dec.More() {
				if key == "cells" {
					n.cell = cell{}
				}
				if err := n.value(element(key), depth+1); err != nil {
					return err
				}
				if key == "cells" {
					n.emit()
				}
			}
		} else {
			kept, html := len(n.cell.out), len(n.cell.html)
			if key == "output" {
				n.stream = ""
			}
			for n.dec.More() {
				k, err := n.dec.Token()
				if err != nil {
					return err
				}
				name, _ := k.(string)
				if err := n.value(name, depth+1); err != nil {
					return err
				}
			}
			if key == "output" && n.stream == "stderr" {
				n.cell.out, n.cell.html = n.cell.out[:kept], n.cell.html[:html]
			}
		}
		_, err = n.dec.Token()
		return err
	case string:
		n.text(key, t)
	}
	return nil
}

// element is the key under which the elements of a list are seen.
func element(key string) string {
	switch key {
	case "source", "input", "text", "text/plain", "text/html":
		return key
	case "outputs":
		return "output"
	}
	return ""
}

func (n *notebook) text(key, s string) {
	if len(s) > maxCellText {
		s = s[:maxCellText]
	}
	at := n.lineNow()
	switch key {
	case "cell_type":
		n.cell.kind = s
	case "name", "stream":
		n.stream = s
	case "text/html":
		for _, l := range strings.Split(strings.TrimSuffix(s, "\n"), "\n") {
			if len(n.cell.html) < 5000 {
				n.cell.html = append(n.cell.html, line{l, at})
			}
		}
	case "source", "input":
		for _, l := range strings.Split(strings.TrimSuffix(s, "\n"), "\n") {
			n.cell.source = append(n.cell.source, line{l, at})
		}
	case "text", "text/plain":
		for _, l := range strings.Split(strings.TrimSuffix(s, "\n"), "\n") {
			if len(n.cell.out) < 2000 {
				n.cell.out = append(n.cell.out, line{l, at})
			}
		}
	}
}

// emit turns the finished cell into blocks, prose and output.
func (n *notebook) emit() {
	if len(n.cell.source) > 0 {
		first := n.cell.source[0].at
		text := make([]string, len(n.cell.source))
		for i, l := range n.cell.source {
			text[i] = l.text
		}
		if n.cell.kind == "code" {
			n.doc.Blocks = append(n.doc.Blocks, markdown.Block{Kind: markdown.Cell, Lang: "python", Line: first, Text: text})
		} else {
			sub := markdown.Scan(strings.Join(text, "\n"))
			shift := first - 1
			for _, h := range sub.Headings {
				h.Line += shift
				n.doc.Headings = append(n.doc.Headings, h)
			}
			for _, p := range sub.Paras {
				p.Line += shift
				n.doc.Paras = append(n.doc.Paras, p)
			}
			n.tables(sub.Tables, func(l int) int { return l + shift })
		}
	}
	if len(n.cell.html) > 0 {
		var b strings.Builder
		for _, l := range n.cell.html {
			b.WriteString(l.text + "\n")
		}
		n.tables(markdown.Scan(b.String()).Tables, func(l int) int { return n.cell.html[min(max(l-1, 0), len(n.cell.html)-1)].at })
	}
	for _, l := range n.cell.out {
		if strings.TrimSpace(l.text) != "" {
			n.outs = append(n.outs, markdown.Output{Text: l.text, Line: l.at, Block: len(n.doc.Blocks) - 1})
		}
	}
}

// tables keeps tables of a cell with their lines in the file, under the heading
// that stands above the cell.
func (n *notebook) tables(ts []markdown.Table, at func(int) int) {
	for _, t := range ts {
		t.Line = at(t.Line)
		for i := range t.Rows {
			t.Rows[i].Line = at(t.Rows[i].Line)
		}
		if h := n.doc.Headings; len(h) > 0 && t.Heading == "" {
			t.Heading, t.Title = h[len(h)-1].Text, h[0].Text
		}
		n.doc.Tables = append(n.doc.Tables, t)
	}
}
