// Package plot draws results as SVG or PNG. It is the only package that knows
// the drawing library.
package plot

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Formats are the file formats, by the ends of names.
func Formats() []string { return []string{".svg", ".png"} }

// Layer is one weight of a checkpoint in a drawing of errors.
type Layer struct {
	Name      string
	Group     string  // its number format; each has a colour
	Index     int     // of the decoder layer; -1 outside
	Error     float64 // relative to the base, 0 to 1 and beyond
	Reference float64 // what rounding to the nearest would give
	Flagged   bool
}

// colours tell up to eight groups apart, also for most colour-blind readers
// (Okabe and Ito, Color Universal Design, 2008).
var colours = []color.RGBA{
	{0, 114, 178, 255}, {230, 159, 0, 255}, {0, 158, 115, 255}, {204, 121, 167, 255},
	{86, 180, 233, 255}, {240, 228, 66, 255}, {0, 0, 0, 255}, {128, 128, 128, 255},
}

var red = color.RGBA{213, 94, 0, 255}

// least is drawn for an error of zero, which a logarithmic axis has no place
// for.
const least = 1e-6

// Layers draws the error of every weight over its place in the model, with the
// error of rounding as short lines, on a logarithmic axis. Flagged weights are
// crosses, and at most ten of them are named. ext is one of Formats.
func Layers(w io.Writer, ext, title string, layers []Layer) error {
	if !slices.Contains(Formats(), ext) {
		return fmt.Errorf("draw layers: format %q is not known", ext)
	}
	p := plot.New()
	p.Title.Text = title
	p.X.Label.Text = "decoder layer (left of 0: outside of the layers)"
	p.Y.Label.Text = "relative error"
	p.Y.Scale = plot.LogScale{}
	p.Y.Tick.Marker = plot.LogTicks{Prec: -1}
	p.Legend.Top = true
	p.Add(plotter.NewGrid())
	var groups []string
	for _, l := range layers {
		if !slices.Contains(groups, l.Group) {
			groups = append(groups, l.Group)
		}
	}
	slices.Sort(groups)
	at := places(layers, groups)
	low, high := math.Inf(1), 0.0
	first, last := 0, 0
	for i, g := range groups {
		var errs, refs plotter.XYs
		for j, l := range layers {
			if l.Group != g {
				continue
			}
			e, r := bounded(l.Error), bounded(l.Reference)
			low, high = min(low, e, r), max(high, e, r)
			first, last = min(first, l.Index), max(last, l.Index)
			refs = append(refs, plotter.XY{X: at[j], Y: r})
			if !l.Flagged {
				errs = append(errs, plotter.XY{X: at[j], Y: e})
			}
		}
		c := colours[i%len(colours)]
		if err := scatter(p, g, errs, draw.CircleGlyph{}, c, 2); err != nil {
			return err
		}
		if err := scatter(p, g+", rounded to nearest", refs, dash{}, c, 4); err != nil {
			return err
		}
	}
	if err := flagged(p, layers, at); err != nil {
		return err
	}
	p.Y.Min, p.Y.Max = low/3, high*3
	p.X.Min, p.X.Max = float64(first)-1, float64(last)+1
	p.X.Tick.Marker = whole{}
	if len(layers) == 0 {
		p.Y.Min, p.Y.Max = least, 1
	}
	c, err := p.WriterTo(11*vg.Inch, 5*vg.Inch, ext[1:])
	if err != nil {
		return fmt.Errorf("draw layers: %w", err)
	}
	if _, err := c.WriteTo(w); err != nil {
		return fmt.Errorf("draw layers: %w", err)
	}
	return nil
}

// places spreads the weights of a layer around its number, by format and in
// their order, so that they do not hide each other.
func places(layers []Layer, groups []string) []float64 {
	type key struct {
		index int
		group string
	}
	all, seen := map[key]int{}, map[key]int{}
	for _, l := range layers {
		all[key{l.Index, l.Group}]++
	}
	out := make([]float64, len(layers))
	width := 0.8 / float64(max(1, len(groups)))
	for i, l := range layers {
		k := key{l.Index, l.Group}
		left := float64(slices.Index(groups, l.Group))*width - 0.4
		out[i] = float64(l.Index) + left + width*(float64(seen[k])+0.5)/float64(all[k])
		seen[k]++
	}
	return out
}

// whole marks whole numbers, at most about twelve.
type whole struct{}

// Ticks implements [plot.Ticker].
func (whole) Ticks(from, to float64) (out []plot.Tick) {
	step := max(1, math.Ceil((to-from)/12))
	for v := math.Ceil(from/step) * step; v <= to; v += step {
		out = append(out, plot.Tick{Value: v, Label: fmt.Sprint(int(v))})
	}
	return out
}

func bounded(v float64) float64 {
	if v != v {
		return least
	}
	return min(max(v, least), 1e6)
}

func scatter(p *plot.Plot, name string, points plotter.XYs, shape draw.GlyphDrawer, c color.Color, radius vg.Length) error {
	if len(points) == 0 {
		return nil
	}
	s, err := plotter.NewScatter(points)
	if err != nil {
		return fmt.Errorf("draw layers: %w", err)
	}
	s.GlyphStyle = draw.GlyphStyle{Color: c, Radius: vg.Points(float64(radius)), Shape: shape}
	p.Add(s)
	if name != "" {
		p.Legend.Add(name, s)
	}
	return nil
}

// flagged marks what was found to be wrong.
func flagged(p *plot.Plot, layers []Layer, places []float64) error {
	const named = 10
	var marks plotter.XYs
	var labels plotter.XYLabels
	for i, l := range layers {
		if !l.Flagged {
			continue
		}
		at := plotter.XY{X: places[i], Y: bounded(l.Error)}
		marks = append(marks, at)
		if len(labels.Labels) < named {
			labels.XYs, labels.Labels = append(labels.XYs, at), append(labels.Labels, " "+l.Name)
		}
	}
	if err := scatter(p, "flagged", marks, draw.CrossGlyph{}, red, 4); err != nil || len(marks) == 0 {
		return err
	}
	text, err := plotter.NewLabels(labels)
	if err != nil {
		return fmt.Errorf("draw layers: %w", err)
	}
	p.Add(text)
	return nil
}

// dash is a short horizontal line.
type dash struct{}

// DrawGlyph implements [draw.GlyphDrawer].
func (dash) DrawGlyph(c *draw.Canvas, s draw.GlyphStyle, at vg.Point) {
	c.SetLineStyle(draw.LineStyle{Color: s.Color, Width: vg.Points(1)})
	var path vg.Path
	path.Move(vg.Point{X: at.X - s.Radius, Y: at.Y})
	path.Line(vg.Point{X: at.X + s.Radius, Y: at.Y})
	c.Stroke(path)
}
