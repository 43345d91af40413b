package wire

import (
	"bytes"
	"errors"
	"fmt"
)

// ErrEventTooLong says that one event held more bytes than the parser keeps.
var ErrEventTooLong = errors.New("event too long")

// maxEvent bounds the memory one event may take. Lines have no bound of their own.
const maxEvent = 64 << 20

// Parser takes the bytes of a text/event-stream apart as they come, by the rules
// of the HTML standard (§9.2.6, "Interpreting an event stream"): lines end in
// LF, CRLF or CR, an empty line ends an event, data lines are joined by LF. The
// zero value is ready.
type Parser struct {
	line []byte // of the line that is not over
	data []byte // of the event that is not over
	some bool   // data has a line, if only an empty one
	cr   bool   // the last byte was a CR that ended a line
	bom  int    // bytes of a byte order mark seen, -1 once there can be none
}

// Feed takes the next bytes and calls event with the data of every event that
// they complete. The data is valid during the call only.
func (p *Parser) Feed(b []byte, event func(data []byte) error) error {
	for len(b) > 0 {
		if p.cr {
			p.cr = false
			if b[0] == '\n' {
				b = b[1:]
				continue
			}
		}
		i := lineEnd(b)
		if i < 0 {
			if len(p.line)+len(p.data)+len(b) > maxEvent {
				return fmt.Errorf("%w: over %d bytes", ErrEventTooLong, maxEvent)
			}
			p.line = append(p.line, b...)
			return nil
		}
		line := b[:i]
		if len(p.line) > 0 {
			p.line = append(p.line, line...)
			line = p.line
		}
		p.cr = b[i] == '\r'
		b = b[i+1:]
		err := p.take(line, event)
		p.line = p.line[:0]
		if err != nil {
			return err
		}
	}
	return nil
}

func lineEnd(b []byte) int {
	i := bytes.IndexByte(b, '\n')
	head := b
	if i >= 0 {
		head = b[:i]
	}
	if j := bytes.IndexByte(head, '\r'); j >= 0 {
		return j
	}
	return i
}

func (p *Parser) take(line []byte, event func([]byte) error) error {
	if p.bom == 0 {
		p.bom = -1
		line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	}
	if len(line) == 0 {
		if !p.some {
			return nil
		}
		err := event(p.data)
		p.data, p.some = p.data[:0], false
		return err
	}
	v, ok := bytes.CutPrefix(line, []byte("data"))
	if !ok || len(v) > 0 && v[0] != ':' {
		return nil // a comment, or a field that says nothing of the answer
	}
	if len(v) > 0 {
		v = bytes.TrimPrefix(v[1:], []byte(" "))
	}
	if len(p.data)+len(v) > maxEvent {
		return fmt.Errorf("%w: over %d bytes", ErrEventTooLong, maxEvent)
	}
	if p.some {
		p.data = append(p.data, '\n')
	}
	p.data = append(p.data, v...)
	p.some = true
	return nil
}

// Pending says whether bytes of an unfinished event are held: the stream broke
// off in the middle of one.
func (p *Parser) Pending() bool { return p.some || len(p.line) > 0 }
