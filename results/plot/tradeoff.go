package plot

import (
	"fmt"
	"image/color"
	"io"
	"math"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Range is a figure with its interval; without one, Lo and Hi are Value.
type Range struct{ Value, Lo, Hi float64 }

// Cell is one load in a drawing of a tradeoff. What is not known is zero.
type Cell struct {
	Label   string // such as c64
	PerGPU  Range  // output tokens per second and GPU
	PerUser Range  // tokens per second that one user sees
	TTFT    Range  // seconds
}

// Curve is an arm's cells, in the order of their load.
type Curve struct {
	Name  string
	Cells []Cell
}

// Tradeoff draws throughput per GPU over what a user sees, tokens per second on
// the left and time to the first token on the right, with intervals as crosses.
// ttft names the latter's figure, such as "P99 TTFT". ext is one of Formats.
func Tradeoff(w io.Writer, ext, title, ttft string, curves []Curve) error {
	if !slices.Contains(Formats(), ext) {
		return fmt.Errorf("draw tradeoff: format %q is not known", ext)
	}
	left, err := panel(curves, func(c Cell) (Range, bool) { return c.PerUser, c.PerUser.Value > 0 }, false)
	if err != nil {
		return err
	}
	left.Title.Text = title
	left.X.Label.Text = "interactivity: tokens/s to each user (better to the right)"
	right, err := panel(curves, func(c Cell) (Range, bool) { return c.TTFT, c.TTFT.Value > 0 }, true)
	if err != nil {
		return err
	}
	right.Title.Text = " "
	right.X.Label.Text = ttft + ", seconds (better to the left)"
	right.Legend = plot.NewLegend()
	const width, height = 12 * vg.Inch, 5 * vg.Inch
	c, err := draw.NewFormattedCanvas(width, height, ext[1:])
	if err != nil {
		return fmt.Errorf("draw tradeoff: %w", err)
	}
	all := [][]*plot.Plot{{left, right}}
	places := plot.Align(all, draw.Tiles{Rows: 1, Cols: 2, PadX: vg.Points(12), PadRight: vg.Points(14), PadTop: vg.Points(4), PadBottom: vg.Points(4), PadLeft: vg.Points(4)}, draw.New(c))
	for i, p := range all[0] {
		p.Draw(places[0][i])
	}
	if _, err := c.WriteTo(w); err != nil {
		return fmt.Errorf("draw tradeoff: %w", err)
	}
	return nil
}

// panel is one of the two drawings.
func panel(curves []Curve, x func(Cell) (Range, bool), logX bool) (*plot.Plot, error) {
	p := plot.New()
	p.Y.Label.Text = "output tokens/s per GPU (better upwards)"
	p.Legend.Top, p.Legend.Left = true, logX
	p.Legend.Padding = vg.Points(2)
	p.Add(plotter.NewGrid())
	lowX, highX, highY := math.Inf(1), 0.0, 0.0
	for i, curve := range curves {
		c := colours[i%len(colours)]
		var line plotter.XYs
		labels := plotter.XYLabels{}
		for _, cell := range curve.Cells {
			at, ok := x(cell)
			if !ok || cell.PerGPU.Value <= 0 {
				continue
			}
			pt := plotter.XY{X: at.Value, Y: cell.PerGPU.Value}
			line = append(line, pt)
			labels.XYs, labels.Labels = append(labels.XYs, pt), append(labels.Labels, cell.Label)
			lowX, highX, highY = min(lowX, at.Value, at.Lo), max(highX, at.Value, at.Hi), max(highY, pt.Y, cell.PerGPU.Hi)
			p.Add(&bars{at, cell.PerGPU, c})
		}
		if err := addCurve(p, curve.Name, line, labels, i); err != nil {
			return nil, err
		}
	}
	p.Y.Min, p.Y.Max = 0, max(1, 1.12*highY)
	switch {
	case highX == 0:
		p.X.Min, p.X.Max = 0.1, 1
	case logX:
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, decades{}
		p.X.Min, p.X.Max = lowX/1.3, highX*1.3
	default:
		p.X.Min, p.X.Max = 0, 1.12*highX
	}
	return p, nil
}

// shapes tell curves apart in print, too.
var shapes = []draw.GlyphDrawer{draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.PyramidGlyph{}}

func addCurve(p *plot.Plot, name string, points plotter.XYs, labels plotter.XYLabels, i int) error {
	if len(points) == 0 {
		return nil
	}
	c := colours[i%len(colours)]
	line, dots, err := plotter.NewLinePoints(points)
	if err != nil {
		return fmt.Errorf("draw tradeoff: %w", err)
	}
	line.LineStyle = draw.LineStyle{Color: c, Width: vg.Points(1.2)}
	if i%2 == 1 {
		line.Dashes = []vg.Length{vg.Points(5), vg.Points(3)}
	}
	dots.GlyphStyle = draw.GlyphStyle{Color: c, Radius: vg.Points(3), Shape: shapes[i%len(shapes)]}
	text, err := plotter.NewLabels(labels)
	if err != nil {
		return fmt.Errorf("draw tradeoff: %w", err)
	}
	// The first curve's names lie above its points and the second's below, so
	// that both can be read where the curves meet.
	text.Offset = vg.Point{X: vg.Points(5), Y: vg.Points(5)}
	if i%2 == 1 {
		text.Offset.Y = -vg.Points(11)
	}
	for j := range text.TextStyle {
		text.TextStyle[j].Color = c
		text.TextStyle[j].Font.Size = font.Length(8)
	}
	p.Add(line, dots, text)
	p.Legend.Add(name, line, dots)
	return nil
}

// bars are the intervals of one point.
type bars struct {
	x, y Range
	c    color.Color
}

// Plot implements [plot.Plotter].
func (b *bars) Plot(c draw.Canvas, p *plot.Plot) {
	tx, ty := p.Transforms(&c)
	st := draw.LineStyle{Color: b.c, Width: vg.Points(0.7)}
	if b.x.Lo > 0 && b.x.Hi > b.x.Lo {
		c.StrokeLine2(st, tx(b.x.Lo), ty(b.y.Value), tx(b.x.Hi), ty(b.y.Value))
	}
	if b.y.Hi > b.y.Lo {
		c.StrokeLine2(st, tx(b.x.Value), ty(b.y.Lo), tx(b.x.Value), ty(b.y.Hi))
	}
}

// decades names 1, 2 and 5 of every power of ten, and more where there is room.
type decades struct{}

// Ticks implements [plot.Ticker].
func (decades) Ticks(from, to float64) (out []plot.Tick) {
	for e := math.Floor(math.Log10(from)); e <= math.Ceil(math.Log10(to)); e++ {
		for k := 1; k <= 9; k++ {
			v := float64(k) * math.Pow(10, e)
			if v < from || v > to {
				continue
			}
			t := plot.Tick{Value: v}
			if k == 1 || k == 2 || k == 5 || to < 8*from {
				t.Label = fmt.Sprintf("%.4g", v)
			}
			out = append(out, t)
		}
	}
	return out
}
