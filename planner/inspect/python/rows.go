package python

import (
	"regexp"
	"strings"
)

// Row is one statement on one line that loads rows of data.
type Row struct {
	Line          int
	Before, After string // the line as it stands, and one that loads a hundred rows
	What          string // the call that loads
}

// Hydra is what @hydra.main says: the folder of the configuration seen from the
// file, and its name.
type Hydra struct{ Path, Name string }

func (s *scanner) hydra(args []arg) {
	h := &Hydra{}
	for _, a := range args {
		v, ok := text1(a.value)
		if !ok {
			continue
		}
		switch a.key {
		case "config_path":
			h.Path = v
		case "config_name":
			h.Name = v
		}
	}
	s.m.Hydra = h
}

var (
	// splitRE finds the split of a data set that is loaded whole
	// (huggingface/datasets, docs/source/loading.mdx, "Slice splits";
	// tensorflow/datasets, docs/splits.ipynb).
	splitRE = regexp.MustCompile(`\b(load_dataset|tfds\.load)\(.*\bsplit\s*=\s*(?:"([A-Za-z_]+)"|'([A-Za-z_]+)')`)
	frameRE = regexp.MustCompile(`\b(?:pd|pandas)\.(read_csv|read_table|read_excel)\(`)
	linesRE = regexp.MustCompile(`=\s*\[.*\bjson\.loads\(.*\bfor\b.*\]\s*$`)
	readRE  = regexp.MustCompile(`^\s*\w+\s*=\s*.*\.(readlines|splitlines)\(\)\s*$`)
)

const (
	maxRowLine = 400
	maxRows    = 40
)

// rows reads a source file line by line. A line within a string of several
// lines is left alone.
func rows(src string) []Row {
	var out []Row
	text := false
	for i, l := range strings.Split(src, "\n") {
		quotes := strings.Count(l, `"""`) + strings.Count(l, `'''`)
		if text || quotes > 0 || len(l) > maxRowLine || strings.HasPrefix(strings.TrimSpace(l), "#") || strings.HasSuffix(l, "\r") {
			if quotes%2 == 1 {
				text = !text
			}
			continue
		}
		if r, ok := fewer(l); ok && len(out) < maxRows {
			r.Line, r.Before = i+1, l
			out = append(out, r)
		}
	}
	return out
}

// fewer rewrites one line so that it loads a hundred rows.
func fewer(l string) (Row, bool) {
	if m := splitRE.FindStringSubmatchIndex(l); m != nil {
		end := max(m[5], m[7])
		return Row{After: l[:end] + "[:100]" + l[end:], What: l[m[2]:m[3]]}, true
	}
	if m := frameRE.FindStringSubmatchIndex(l); m != nil {
		end := closing(l, m[1]-1)
		if end < 0 || strings.Contains(l[m[1]:end], "nrows") || strings.Contains(l[m[1]:end], "chunksize") || strings.TrimSpace(l[m[1]:end]) == "" {
			return Row{}, false
		}
		return Row{After: strings.TrimRight(l[:end], ", ") + ", nrows=100" + l[end:], What: "pandas." + l[m[2]:m[3]]}, true
	}
	if linesRE.MatchString(l) {
		return Row{After: strings.TrimRight(l, " \t") + "[:100]", What: "a list of lines"}, true
	}
	if m := readRE.FindStringSubmatch(l); m != nil {
		return Row{After: strings.TrimRight(l, " \t") + "[:100]", What: m[1]}, true
	}
	return Row{}, false
}

// closing is the index of the bracket that closes the one at i of a line, or -1.
func closing(l string, i int) int {
	depth := 0
	var quote byte
	for ; i < len(l); i++ {
		c := l[i]
		switch {
		case quote != 0:
			if c == '\\' {
				i++
			} else if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '#':
			return -1
		case c == '(' || c == '[' || c == '{':
			depth++
		case c == ')' || c == ']' || c == '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}
