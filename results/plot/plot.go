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
	low, high := math.Inf(1), 0.0
	for i, g := range groups {
		at := func(l Layer) float64 { // formats side by side, not on top of each other
			return float64(l.Index) + 0.6*(float64(i)+0.5)/float64(len(groups)) - 0.3
		}
		var errs, refs plotter.XYs
		for _, l := range layers {
			if l.Group != g {
				continue
			}
			e, r := bounded(l.Error), bounded(l.Reference)
			low, high = min(low, e, r), max(high, e, r)
			refs = append(refs, plotter.XY{X: at(l), Y: r})
			if !l.Flagged {
				errs = append(errs, plotter.XY{X: at(l), Y: e})
			}
		}
		if err := scatter(p, g, errs, draw.CircleGlyph{}, colours[i%len(colours)], 2); err != nil {
			return err
		}
		if err := scatter(p, "", refs, dash{}, colours[i%len(colours)], 3); err != nil {
			return err
		}
	}
	if err := flagged(p, layers); err != nil {
		return err
	}
	p.Y.Min, p.Y.Max = low/2, high*2
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
func flagged(p *plot.Plot, layers []Layer) error {
	const named = 10
	var marks plotter.XYs
	var labels plotter.XYLabels
	for _, l := range layers {
		if !l.Flagged {
			continue
		}
		at := plotter.XY{X: float64(l.Index), Y: bounded(l.Error)}
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
