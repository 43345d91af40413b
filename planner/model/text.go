package model

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// WriteText writes what is known of the model for people, at most about 100
// columns wide.
func (m *Model) WriteText(w io.Writer) error {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(cells ...string) { fmt.Fprintln(tw, strings.Join(cells, "\t")) }
	if m.ID != "" {
		row("model", m.ID)
	}
	row("architecture", strings.TrimPrefix(m.Architecture+", "+m.Type, ", "))
	row("parameters", m.parameterText())
	row("shape", m.shapeText())
	row("cache", strings.Join(m.cacheText(), "\n\t"))
	size := "unknown"
	if m.Bytes > 0 {
		n := m.Params.Total + m.Params.MTP
		size = fmt.Sprintf("%s, %.2f bits per parameter", gib(m.Bytes), 8*float64(m.Bytes)/float64(n))
	}
	row("weights", size)
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
	if len(m.Formats) > 0 {
		b.WriteByte('\n')
		row("format", "asked for", "modules", "parameters", "size", "on sm_90", "on sm_100", "on sm_120", "parts")
		for _, f := range m.Formats {
			paths := make([]string, 3)
			for i, sm := range []int{90, 100, 120} {
				paths[i] = f.On(sm).short()
			}
			name := string(f.Weights)
			if f.Algo != "" && !strings.EqualFold(f.Algo, name) {
				name += " (" + f.Algo + ")"
			}
			row(name, f.Math, fmt.Sprint(f.Modules), billions(f.Params), gib(f.Bytes), paths[0], paths[1], paths[2], partsText(f.Parts))
		}
		_ = tw.Flush()
	}
	for _, warning := range m.Warnings {
		fmt.Fprintf(&b, "\n! %s", warning.Message)
	}
	if len(m.Warnings) > 0 {
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (m *Model) parameterText() string {
	p := m.Params
	s := billions(p.Total)
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

// On is what the modules of a share run as on GPUs of a compute capability; see
// [Scheme.On].
func (f FormatShare) On(capability int) Path { return f.scheme.On(capability) }

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

func partsText(parts []Part) string {
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = strings.ReplaceAll(string(p), "_", " ")
	}
	return strings.Join(names, ", ")
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
