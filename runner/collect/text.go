package collect

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// maxLine bounds the part of a line that a pattern sees; the rest of a longer
// line is passed over.
const maxLine = 1 << 20

// ansi matches terminal control sequences, which coloured logs put between a
// name and its number (ECMA-48 §5.4 and §8.3.89).
var ansi = regexp.MustCompile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|\\][^\x07\x1b]*(?:\x07|\x1b\\\\))")

// matchLines applies the pattern to each line. A carriage return ends a line
// too, as progress bars use it, but does not count as one.
func matchLines(r io.Reader, pattern, file string) ([]candidate, error) {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, missing("the pattern does not compile: %v", err)
	}
	group := valueGroup(re)
	br := bufio.NewReaderSize(r, 64<<10)
	var out []candidate
	for n := 1; ; n++ {
		line, err := readLine(br)
		for part := range strings.SplitSeq(line, "\r") {
			if strings.Contains(part, "\x1b") {
				part = ansi.ReplaceAllString(part, "")
			}
			for _, m := range re.FindAllStringSubmatchIndex(part, -1) {
				if m[2*group] >= 0 {
					out = append(out, candidate{text: part[m[2*group]:m[2*group+1]], line: n, quote: around(part, m[2*group])})
				}
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
	}
	if len(out) == 0 {
		return nil, missing("no line of %s matches %s", file, clip(pattern, 120))
	}
	return out, nil
}

// valueGroup is the group named "value", else the first, else the whole match.
func valueGroup(re *regexp.Regexp) int {
	if i := re.SubexpIndex("value"); i >= 0 {
		return i
	}
	return min(re.NumSubexp(), 1)
}

// around quotes the line, or its part about the given byte when it is long.
func around(line string, at int) func() string {
	return func() string {
		from := max(0, at-maxQuote/2)
		return line[from:min(len(line), from+2*maxQuote)]
	}
}

// readLine reads one line of any length and returns at most maxLine of it.
func readLine(br *bufio.Reader) (string, error) {
	var b []byte
	for {
		frag, err := br.ReadSlice('\n')
		if room := maxLine - len(b); room > 0 {
			b = append(b, frag[:min(len(frag), room)]...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return strings.TrimSuffix(string(b), "\n"), err
	}
}

// fromCSV takes the column whose header is the given name. The separator is
// the most frequent of comma, semicolon and tab in the header. Empty cells are
// passed over.
func fromCSV(body []byte, column, file string) ([]candidate, error) {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	header, _, _ := bytes.Cut(body, []byte("\n"))
	r := csv.NewReader(bytes.NewReader(body))
	r.FieldsPerRecord, r.LazyQuotes, r.ReuseRecord, r.TrimLeadingSpace = -1, true, true, true
	for _, c := range []rune{';', '\t'} {
		if bytes.Count(header, []byte(string(c))) > bytes.Count(header, []byte(string(r.Comma))) {
			r.Comma = c
		}
	}
	names, err := r.Read()
	if err != nil {
		return nil, missing("%s has no header line", file)
	}
	col := -1
	for i, n := range names {
		if strings.TrimSpace(n) != column {
			continue
		}
		if col >= 0 {
			return nil, missing("%s has the column %q twice", file, column)
		}
		col = i
	}
	if col < 0 {
		return nil, missing("%s has no column %q, only %s", file, column, clip(strings.Join(names, ", "), 200))
	}
	var out []candidate
	for {
		from := r.InputOffset()
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, missing("%s: %v", file, err)
		}
		if col >= len(rec) || strings.TrimSpace(rec[col]) == "" {
			continue
		}
		line, _ := r.FieldPos(col)
		row := body[from:r.InputOffset()]
		out = append(out, candidate{text: rec[col], line: line, quote: func() string { return string(row[:min(len(row), 2*maxQuote)]) }})
	}
	if len(out) == 0 {
		return nil, missing("column %q of %s is empty", column, file)
	}
	return out, nil
}
