package model

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// GPU is a column of the table of formats.
type GPU struct {
	Name       string
	Capability int // 90 for 9.0
}

// WriteText writes what is known of a model for people, at most about 110
// columns wide with four GPUs.
func (k *Known) WriteText(w io.Writer, gpus []GPU) error {
	m := k.Model
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(tw, strings.Join(cells, "\t")) }
	if m.ID != "" {
		row("model", m.ID)
	}
	row("architecture", strings.TrimPrefix(m.Architecture+", "+m.Type, ", "))
	row("parameters", k.parameterText())
	row("shape", m.shapeText())
	row("cache", strings.Join(m.cacheText(), "\n\t"))
	row("weights", k.sizeText())
	if q := m.Quant; q != nil {
		stated := strings.TrimSpace(q.Method + " " + q.Algo)
		if q.Producer != "" && q.Producer != q.Method {
			stated += ", by " + q.Producer
		}
		if q.KV != "" {
			stated += ", KV cache " + string(q.KV)
		}
		row("stated", stated+" ("+q.Source+")")
	}
	_ = tw.Flush() // into memory
	b.WriteByte('\n')
	k.writeGroups(&b, gpus)
	for _, warning := range m.Warnings {
		fmt.Fprintf(&b, "\n! %s", warning.Message)
	}
	if len(m.Warnings) > 0 {
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (k *Known) writeGroups(b *strings.Builder, gpus []GPU) {
	tw := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(tw, strings.Join(cells, "\t")) }
	head := []string{"part", "format", "asked for", "modules", "parameters", "size"}
	for _, g := range gpus {
		head = append(head, "on "+g.Name)
	}
	row(head...)
	for _, g := range k.Groups() {
		name := string(g.Weights)
		if g.Block != "" {
			name += " " + g.Block
		}
		size := "unknown"
		if g.Bytes > 0 {
			size = gib(g.Bytes)
		}
		cells := []string{strings.ReplaceAll(string(g.Part), "_", " "), name, g.Math, fmt.Sprint(g.Modules), billions(g.Params), size}
		for _, gpu := range gpus {
			cells = append(cells, g.On(gpu.Capability).short())
		}
		row(cells...)
	}
	_ = tw.Flush()
	k.writePaths(b, gpus)
}

// writePaths says what each quantised format runs as, with the GPUs on which it
// is the same in one line.
func (k *Known) writePaths(b *strings.Builder, gpus []GPU) {
	type key struct{ format, path string }
	var order []key
	on := map[key][]string{}
	for _, g := range k.Groups() {
		if !g.Quantised() || g.Weights == FormatUnknown {
			continue
		}
		format := string(g.Weights)
		if g.Algo != "" && !strings.EqualFold(g.Algo, format) {
			format += " (" + g.Algo + ")"
		}
		for _, gpu := range gpus {
			at := key{format, g.On(gpu.Capability).text()}
			if on[at] == nil {
				order = append(order, at)
			}
			if !slices.Contains(on[at], gpu.Name) {
				on[at] = append(on[at], gpu.Name)
			}
		}
	}
	for _, at := range order {
		fmt.Fprintf(b, "%s on %s: %s\n", at.format, strings.Join(on[at], ", "), at.path)
	}
}

// text is the path in words.
func (p Path) text() string {
	s := p.Math + " by " + p.Kernel
	switch {
	case p.Math == "":
		s = "does not run"
	case !p.Sure:
		s += ", if the engine chooses so"
	}
	if p.Note != "" {
		s += "; " + p.Note
	}
	return s
}

func (k *Known) sizeText() string {
	size := k.size()
	total, source := k.Params()
	if size == 0 || total == 0 {
		return "unknown"
	}
	return fmt.Sprintf("%s, %.2f bits per parameter (%s)", gib(size), 8*float64(size)/float64(total), source)
}

func (k *Known) parameterText() string {
	p := k.Model.Params
	total, source := k.Params()
	s := billions(p.Total)
	if k.Census != nil {
		s = billions(total) + " (" + source + ")"
	}
	if p.Vision > 0 {
		s += fmt.Sprintf(" (text %s, vision %s)", billions(p.Text), billions(p.Vision))
	}
	if p.Active < p.Text {
		s += fmt.Sprintf("; a token uses %s, %s without the input embedding", billions(p.Active), billions(p.Compute))
	}
	if p.MTP > 0 {
		s += "; " + billions(p.MTP) + " for multi-token prediction besides"
	}
	return s
}

func (m *Model) shapeText() string {
	s := fmt.Sprintf("%d layers, hidden %d, vocabulary %d", m.Layers, m.Hidden, m.Vocab)
	if m.Experts > 0 {
		s += fmt.Sprintf(", %d of %d experts", m.ExpertsUsed, m.Experts)
	}
	if m.Context > 0 {
		s += fmt.Sprintf(", context %d", m.Context)
	}
	return s
}

// cacheText describes the cache in 16 bits, one line per group of layers.
func (m *Model) cacheText() []string {
	var lines []string
	for _, g := range m.Cache.KV {
		s := fmt.Sprintf("%d layers %s: %s per token", g.Layers, g.Kind, kib(2*int64(g.Layers)*int64(g.Elements)))
		if g.Window > 0 {
			s += fmt.Sprintf(", the last %d tokens", g.Window)
		}
		if g.Heads == 0 {
			s += ", replicated on every GPU of a tensor-parallel group"
		}
		lines = append(lines, s)
	}
	for _, g := range m.Cache.States {
		one := Cache{States: []StateGroup{g}}
		lines = append(lines, fmt.Sprintf("%d layers %s: %.1f MiB per sequence, whatever its length", g.Layers, g.Kind, float64(one.StateBytes(2))/(1<<20)))
	}
	if m.Context > 0 && len(m.Cache.KV) > 0 {
		full := 2*m.Cache.At(int64(m.Context), 1) + m.Cache.StateBytes(2)
		lines = append(lines, fmt.Sprintf("a sequence of %d tokens takes %s in 16 bits", m.Context, gib(full)))
	}
	if len(lines) == 0 {
		lines = append(lines, "none")
	}
	return lines
}

// short is the path in a table: "w4a4", "w4a4?" where the engine decides, "–"
// where it does not run.
func (p Path) short() string {
	switch {
	case p.Math == "":
		return "–"
	case !p.Sure:
		return p.Math + "?"
	}
	return p.Math
}

func billions(n int64) string {
	if n < 10_000_000 {
		return fmt.Sprintf("%.2f M", float64(n)/1e6)
	}
	return fmt.Sprintf("%.2f B", float64(n)/1e9)
}

func gib(n int64) string {
	if n < 1<<28 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
}

func kib(n int64) string { return fmt.Sprintf("%.1f KiB", float64(n)/1024) }
