// Package collect reads numbers out of what foreign code wrote.
//
// A plan says where each number stands ([spec.Collect]); this package goes
// there and returns the number with the line it was read from, or says why
// there is none. It never guesses: what is ambiguous, not a number or not
// finite is not found. Files are opened through [os.Root], so a link that
// leaves the folder leads nowhere; their size is bounded, and the work is
// linear in it.
package collect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unicode"

	"github.com/repromill/repromill/planner/spec"
)

// DefaultMaxBytes bounds each file that is read.
const DefaultMaxBytes = 64 << 20

// maxQuote bounds a quoted line, in bytes.
const maxQuote = 300

// Source is where one execution left its output.
type Source struct {
	Dir      string // the folder the rules' paths are relative to; the run's working directory
	Stdout   string // path of the captured standard output; it need not be below Dir
	Stderr   string // path of the captured standard error, where it was captured apart
	MaxBytes int64  // of each file; 0 means DefaultMaxBytes
}

// Value is one number with its origin.
type Value struct {
	Metric string  `json:"metric"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit,omitempty"`
	Quote  string  `json:"quote"` // the line it stood in, without control characters
	File   string  `json:"file"`  // relative to Dir, or "stdout"
	Line   int     `json:"line,omitempty"`
}

// Result is what one rule gave: a value, or the reason why there is none.
type Result struct {
	Metric   string `json:"metric"`
	Value    *Value `json:"value,omitempty"`
	NotFound string `json:"not_found,omitempty"`
}

// notFound is a reason that is an outcome and not an error of ours.
type notFound string

func (n notFound) Error() string { return string(n) }

func missing(format string, args ...any) error { return notFound(fmt.Sprintf(format, args...)) }

// All applies every rule. Where several rules name the same metric, the first
// that finds it counts and the others are alternatives. The error is of the
// machine (a disk that cannot be read), never of the content.
func All(ctx context.Context, src Source, rules []spec.Collect) ([]Result, error) {
	if src.MaxBytes <= 0 {
		src.MaxBytes = DefaultMaxBytes
	}
	root, err := os.OpenRoot(src.Dir)
	if err != nil {
		return nil, fmt.Errorf("collect: open output folder: %w", err)
	}
	defer root.Close()
	var out []Result
	at := map[string]int{}
	for _, rule := range rules {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		i, seen := at[rule.Metric]
		if seen && out[i].Value != nil {
			continue
		}
		res := Result{Metric: rule.Metric}
		v, err := one(root, src, rule)
		var nf notFound
		switch {
		case err == nil:
			res.Value = &v
		case errors.As(err, &nf):
			res.NotFound = string(nf)
		default:
			return nil, fmt.Errorf("collect metric %s: %w", rule.Metric, err)
		}
		switch {
		case !seen:
			at[rule.Metric] = len(out)
			out = append(out, res)
		case res.Value != nil:
			out[i] = res
		default:
			out[i].NotFound += "; " + res.NotFound
		}
	}
	return out, nil
}

// candidate is one number as it stands in a file.
type candidate struct {
	text string
	line int
	// quote gives the line; it is a function because only the chosen one's is
	// needed.
	quote func() string
}

func one(root *os.Root, src Source, rule spec.Collect) (Value, error) {
	var (
		cands []candidate
		file  = rule.Path
		err   error
	)
	if rule.Kind == "stdout_regex" {
		cands, file, err = fromStreams(src, rule)
	} else {
		cands, file, err = fromFile(root, src, rule)
	}
	if err != nil {
		return Value{}, err
	}
	i, num, err := choose(cands, rule.Select, file)
	if err != nil {
		return Value{}, err
	}
	if rule.Scale != 0 {
		num *= rule.Scale
	}
	if math.IsInf(num, 0) || math.IsNaN(num) {
		return Value{}, missing("%s line %d: the value is not finite after scaling", file, cands[i].line)
	}
	return Value{Metric: rule.Metric, Value: num, Unit: rule.Unit, Quote: Clean(cands[i].quote()), File: file, Line: cands[i].line}, nil
}

// fromStreams reads what the command printed. Loggers write to standard error
// by default, so that is looked at where standard output has no such line.
func fromStreams(src Source, rule spec.Collect) (cands []candidate, stream string, err error) {
	cands, err = fromStream(src, src.Stdout, "stdout", rule)
	var none notFound
	if src.Stderr == "" || !errors.As(err, &none) && (err != nil || len(cands) > 0) {
		return cands, "stdout", err
	}
	if more, merr := fromStream(src, src.Stderr, "stderr", rule); merr == nil && len(more) > 0 {
		return more, "stderr", nil
	}
	return cands, "stdout", err
}

func fromStream(src Source, path, name string, rule spec.Collect) ([]candidate, error) {
	if path == "" {
		return nil, missing("there is no captured output")
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing("there is no captured output")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return matchLines(io.LimitReader(f, src.MaxBytes), rule.Pattern, name)
}

func fromFile(root *os.Root, src Source, rule spec.Collect) (cands []candidate, file string, err error) {
	f, file, err := open(root, rule.Path)
	if err != nil {
		return nil, file, err
	}
	defer f.Close()
	if rule.Kind == "file_exists" {
		info, err := f.Stat()
		if err != nil {
			return nil, file, err
		}
		return []candidate{{text: "1", quote: func() string { return fmt.Sprintf("%s, %d bytes", file, info.Size()) }}}, file, nil
	}
	body, err := io.ReadAll(io.LimitReader(f, src.MaxBytes+1))
	if err != nil {
		return nil, file, err
	}
	if int64(len(body)) > src.MaxBytes {
		return nil, file, missing("%s is larger than %d bytes", file, src.MaxBytes)
	}
	switch rule.Kind {
	case "json":
		cands, err = fromJSON(body, rule.Pointer, file)
	case "jsonl":
		cands, err = fromJSONLines(body, rule.Pointer, file)
	case "csv":
		cands, err = fromCSV(body, rule.Pointer, file)
	case "notebook":
		cands, err = fromNotebook(body, rule, file)
	default:
		err = missing("%q is no kind of rule", rule.Kind)
	}
	return cands, file, err
}

// open opens a regular file below the root. A path with *, ? or [ that names
// no file itself is a pattern and must match exactly one.
func open(root *os.Root, name string) (*os.File, string, error) {
	name = path.Clean(filepath.ToSlash(name))
	f, err := openRegular(root, name)
	var nf notFound
	if err == nil || !errors.As(err, &nf) || !strings.ContainsAny(name, "*?[") {
		return f, name, err
	}
	matches, gerr := fs.Glob(root.FS(), name)
	switch {
	case gerr != nil || len(matches) == 0:
		return nil, name, missing("no file matches %s", name)
	case len(matches) > 1:
		return nil, name, missing("%d files match %s, from %s to %s; one was expected", len(matches), name, matches[0], matches[len(matches)-1])
	}
	f, err = openRegular(root, matches[0])
	return f, matches[0], err
}

func openRegular(root *os.Root, name string) (*os.File, error) {
	// Without O_NONBLOCK a named pipe would hold the opening for ever.
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, missing("%s does not exist", name)
	case errors.Is(err, fs.ErrPermission):
		return nil, missing("%s may not be read", name)
	case err != nil && isPath(err):
		return nil, missing("%s cannot be opened below the working directory: %v", name, errors.Unwrap(err))
	case err != nil:
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, missing("%s is no regular file", name)
	}
	return f, nil
}

// isPath tells a bad path (an escape, a folder in place of a file, a name that
// is too long, a loop) from a disk that cannot be read.
func isPath(err error) bool {
	var pe *fs.PathError
	return errors.As(err, &pe) && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE)
}

// choose picks the candidate that sel names. A candidate that counts and is no
// finite number makes the whole rule find nothing.
func choose(cands []candidate, sel, file string) (int, float64, error) {
	if len(cands) == 0 {
		return 0, 0, missing("nothing in %s matches", file)
	}
	best, bestV := -1, 0.0
	consider := cands
	offset := 0
	switch sel {
	case "first":
		consider = cands[:1]
	case "", "last":
		offset = len(cands) - 1
		consider = cands[offset:]
	}
	for i, c := range consider {
		v, err := number(c.text)
		if err != nil {
			return 0, 0, missing("%s line %d: %v", file, c.line, err)
		}
		if best < 0 || (sel == "min" && v < bestV) || (sel == "max" && v > bestV) {
			best, bestV = offset+i, v
		}
	}
	return best, bestV, nil
}

// number reads a decimal number as programs print it: with a sign, an
// exponent, commas between thousands, or a percent sign behind it, which is
// left to the rule's unit.
func number(s string) (float64, error) {
	t := strings.TrimSpace(s)
	t = strings.TrimSpace(strings.TrimSuffix(t, "%"))
	t = strings.Replace(t, "−", "-", 1)
	if strings.Contains(t, ",") {
		if !thousands(t) {
			return 0, fmt.Errorf("%q is no number", clip(s, 60))
		}
		t = strings.ReplaceAll(t, ",", "")
	}
	if strings.ContainsAny(t, "xXpP_") {
		return 0, fmt.Errorf("%q is no decimal number", clip(s, 60))
	}
	v, err := strconv.ParseFloat(t, 64)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("%q is out of range", clip(s, 60))
	case err != nil:
		return 0, fmt.Errorf("%q is no number", clip(s, 60))
	case math.IsNaN(v) || math.IsInf(v, 0):
		return 0, fmt.Errorf("%q is not finite", clip(s, 60))
	}
	return v, nil
}

// thousands reports whether the commas stand where thousands are parted.
func thousands(s string) bool {
	s = strings.TrimLeft(s, "+-")
	whole, _, _ := strings.Cut(s, ".")
	parts := strings.Split(whole, ",")
	if len(parts[0]) == 0 || len(parts[0]) > 3 || strings.Contains(s[len(whole):], ",") {
		return false
	}
	for _, p := range parts[1:] {
		if len(p) != 3 {
			return false
		}
	}
	return true
}

// Clean makes a line of foreign output fit to be shown: valid UTF-8 without
// terminal sequences and control characters, at most 300 bytes and a "…".
func Clean(s string) string {
	s = ansi.ReplaceAllString(s, "")
	s = strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return clip(strings.TrimSpace(s), maxQuote)
}

// clip cuts at a rune's border.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
