package calibrate

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"math"
)

// shippedJSON is written by `repromill estimate calibrate ROWS.csv --configs DIR
// -o FILE`. It names the sources of its rows.
//
//go:embed shipped.json
var shippedJSON []byte

// Shipped returns the calibration that comes with the program.
func Shipped() (*Calibration, error) { return Read(bytes.NewReader(shippedJSON)) }

// MaxCalibration bounds the size of a calibration file, in bytes.
const MaxCalibration = 8 << 20

// CalibrationError says why a calibration cannot be used.
type CalibrationError struct{ Why string }

func (e *CalibrationError) Error() string { return "calibration: " + e.Why }

// UserError is what the user can do.
func (e *CalibrationError) UserError() string {
	return "write one with `repromill estimate calibrate ROWS.csv --configs DIR -o FILE`"
}

// Read reads a calibration. Its error is a [*CalibrationError].
func Read(r io.Reader) (*Calibration, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxCalibration+1))
	if err != nil {
		return nil, fmt.Errorf("read calibration: %w", err)
	}
	if len(b) > MaxCalibration {
		return nil, &CalibrationError{"it is longer than 8 MiB"}
	}
	c := &Calibration{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, &CalibrationError{err.Error()}
	}
	if c.Version != Version {
		return nil, &CalibrationError{fmt.Sprintf("version %.20q is not %s", c.Version, Version)}
	}
	for _, k := range []string{knownCell, knownModel, knownSKU, knownNone} {
		for _, class := range classes {
			s, ok := c.Spread[k+"/"+class]
			if !ok || !(s.P10 <= 0 && s.P90 >= 0 && s.P10 > -10 && s.P90 < 10) {
				return nil, &CalibrationError{fmt.Sprintf("spread %q is missing or absurd", k+"/"+class)}
			}
		}
	}
	c.design = newDesign()
	for _, cell := range c.Cells {
		for _, e := range effectsOf(cell.Structure, cell.SKU, cell.Precision, cell.Framework) {
			if _, ok := c.design.index[e.name]; !ok {
				c.design.add(param{e.name, 0, e.sd})
			}
		}
	}
	c.theta = make([]float64, len(c.design.list))
	for i, p := range c.design.list {
		c.theta[i] = p.mean
	}
	for name, v := range c.Params {
		i, ok := c.design.index[name]
		if !ok || math.IsNaN(v) || math.Abs(v) > 50 {
			return nil, &CalibrationError{fmt.Sprintf("parameter %.60q is unknown or absurd", name)}
		}
		c.theta[i] = v
	}
	c.count()
	return c, nil
}

// Write writes a calibration. The same calibration gives the same bytes.
func (c *Calibration) Write(w io.Writer) error {
	out := *c
	out.Params = map[string]float64{}
	for i, p := range c.design.list {
		if v := math.Round(c.theta[i]*1e5) / 1e5; math.Abs(v-p.mean) >= 1e-4 {
			out.Params[p.name] = v
		}
	}
	b, err := json.MarshalIndent(&out, "", " ")
	if err != nil {
		return fmt.Errorf("encode calibration: %w", err)
	}
	if _, err := w.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("write calibration: %w", err)
	}
	return nil
}
