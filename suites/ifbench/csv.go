package ifbench

import "strings"

// maxField is csv.field_size_limit() of Python.
const maxField = 131072

// readCSV reads rows as Python's csv.reader does by default: quotation marks open
// a field only at its beginning, text may follow a closed one, blank lines are
// empty rows, and an open quotation ends with the text. It reports false where
// Python raises an error.
func readCSV(s string, comma byte) (rows [][]string, ok bool) {
	r := csvReader{comma: comma}
	for line := range strings.SplitAfterSeq(s, "\n") {
		if line == "" {
			break
		}
		for i := range len(line) {
			if r.take(line[i]); r.state == broken || r.chars > maxField {
				return nil, false
			}
		}
		if r.endLine(); r.state == startRecord {
			rows, r.row = append(rows, r.row), nil
		}
	}
	if r.state != startRecord {
		r.save()
		rows = append(rows, r.row)
	}
	return rows, true
}

type csvState int

const (
	startRecord csvState = iota
	startField
	inField
	inQuotes
	afterQuote
	eatNewline
	broken
)

type csvReader struct {
	comma byte
	state csvState
	row   []string
	field []byte
	chars int // of the field
}

func (r *csvReader) save() { r.row, r.field, r.chars = append(r.row, string(r.field)), r.field[:0], 0 }

func (r *csvReader) add(c byte, next csvState) {
	r.field, r.state = append(r.field, c), next
	if c&0xc0 != 0x80 {
		r.chars++
	}
}

// take takes one byte of a line.
func (r *csvReader) take(c byte) {
	switch newline := c == '\n' || c == '\r'; {
	case r.state == eatNewline:
		if !newline {
			r.state = broken
		}
	case r.state == inQuotes && c == '"':
		r.state = afterQuote
	case r.state == inQuotes, r.state == afterQuote && c == '"':
		r.add(c, inQuotes)
	case newline:
		if r.state != startRecord {
			r.save()
		}
		r.state = eatNewline
	case c == r.comma:
		r.save()
		r.state = startField
	case c == '"' && (r.state == startRecord || r.state == startField):
		r.state = inQuotes
	default:
		r.add(c, inField)
	}
}

// endLine is what the reader does at the end of every line.
func (r *csvReader) endLine() {
	switch r.state {
	case inQuotes:
		return
	case startField, inField, afterQuote:
		r.save()
	}
	r.state = startRecord
}
