package plot

import (
	"fmt"
	"image/color"
	"io"
	"strconv"

	stdfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
)

// PNG writes the figure as pixels, two for each unit, in the colours of a theme
// that must not be the zero one.
func (f *Figure) PNG(w io.Writer, t Theme) error {
	w1, h1 := vg.Length(f.W), vg.Length(f.H)
	c := vgimg.NewWith(vgimg.UseWH(w1, h1), vgimg.UseDPI(144), vgimg.UseBackgroundColor(rgba(t[Paper])))
	p := painter{draw.New(c), t, h1}
	for i := range f.marks {
		p.mark(&f.marks[i])
	}
	if _, err := (vgimg.PngCanvas{Canvas: c}).WriteTo(w); err != nil {
		return fmt.Errorf("draw %s: %w", f.Title, err)
	}
	return nil
}

type painter struct {
	c draw.Canvas
	t Theme
	h vg.Length
}

func rgba(hex string) color.NRGBA {
	if len(hex) != 7 {
		return color.NRGBA{A: 255}
	}
	v, _ := strconv.ParseUint(hex[1:], 16, 32)
	return color.NRGBA{uint8(v >> 16), uint8(v >> 8), uint8(v), 255}
}

func (p painter) at(x, y float64) vg.Point { return vg.Point{X: vg.Length(x), Y: p.h - vg.Length(y)} }

func (p painter) mark(m *mark) {
	col := rgba(p.t[m.ink])
	if m.soft {
		col.A = 46
	}
	style := draw.LineStyle{Color: col, Width: vg.Length(m.r)}
	if m.dash {
		style.Dashes = []vg.Length{4, 4}
	}
	switch m.kind {
	case "line":
		p.c.StrokeLine2(style, p.at(m.x, m.y).X, p.at(m.x, m.y).Y, p.at(m.x2, m.y2).X, p.at(m.x2, m.y2).Y)
	case "rect":
		p.c.FillPolygon(col, []vg.Point{p.at(m.x, m.y), p.at(m.x+m.x2, m.y), p.at(m.x+m.x2, m.y+m.y2), p.at(m.x, m.y+m.y2)})
	case "circle":
		p.c.DrawGlyph(draw.GlyphStyle{Color: col, Radius: vg.Length(m.r), Shape: draw.CircleGlyph{}}, p.at(m.x, m.y))
	case "path":
		pts := make([]vg.Point, len(m.points))
		for i, q := range m.points {
			pts[i] = p.at(q[0], q[1])
		}
		if m.fill {
			p.c.FillPolygon(col, pts)
		} else if len(pts) > 1 {
			p.c.StrokeLines(style, pts)
		}
	case "text":
		p.text(m, col)
	}
}

func (p painter) text(m *mark, col color.Color) {
	fnt := font.From(plot.DefaultFont, vg.Length(m.size))
	fnt.Variant = "Sans"
	if m.mono {
		fnt.Variant = "Mono"
	}
	if m.bold {
		fnt.Weight = stdfont.WeightBold
	}
	sty := text.Style{Color: col, Font: fnt, XAlign: draw.XLeft, Handler: plot.DefaultTextHandler}
	switch m.anchor {
	case "middle":
		sty.XAlign = draw.XCenter
	case "end":
		sty.XAlign = draw.XRight
	}
	at := p.at(m.x, m.y)
	p.c.FillText(sty, at, visible(m.text))
}
