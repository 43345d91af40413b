// Package sse reads server-sent events: without a bound on the length of a line,
// and each event as soon as its last byte is there.
package sse

import (
	"bufio"
	"bytes"
	"errors"
	"io"
)

// Event is one event. Data is valid until the next one is read.
type Event struct {
	Name string // "" where the server names none
	ID   string
	Data []byte // lines joined by line feeds
}

// ErrTooLarge says that an event is larger than the reader's bound.
var ErrTooLarge = errors.New("an event is too large")

// MaxEvent is the most bytes of one event.
const MaxEvent = 64 << 20

// Reader reads events as the HTML standard says (section 9.2.6), but for two
// things: an event that the end of the stream cuts off before its blank line is
// given if it has data, because servers leave the line out after the last event;
// and bytes that are not UTF-8 pass.
type Reader struct {
	br      *bufio.Reader
	skipLF  bool // the line before ended in CR
	started bool
	line    []byte
	data    []byte
}

// NewReader returns a reader of r.
func NewReader(r io.Reader) *Reader { return NewReaderSize(r, 16<<10) }

// NewReaderSize returns a reader that asks r for so many bytes at once.
func NewReaderSize(r io.Reader, size int) *Reader { return &Reader{br: bufio.NewReaderSize(r, size)} }

// Reset makes the reader read from another stream, with the memory it has.
func (r *Reader) Reset(from io.Reader) {
	r.br.Reset(from)
	*r = Reader{br: r.br, line: small(r.line), data: small(r.data)}
}

// small empties a buffer for another use, unless it has grown out of proportion.
func small(b []byte) []byte {
	if cap(b) > 64<<10 {
		return nil
	}
	return b[:0]
}

// Next returns the next event, and [io.EOF] after the last. Another error is that
// of the stream.
func (r *Reader) Next() (Event, error) {
	var ev Event
	r.data = r.data[:0]
	any := false
	for {
		line, err := r.readLine()
		if err != nil && !(errors.Is(err, io.EOF) && len(line) > 0) {
			if errors.Is(err, io.EOF) && any {
				ev.Data = r.data[:len(r.data)-1]
				return ev, nil
			}
			return Event{}, err
		}
		if len(line) == 0 {
			if any {
				ev.Data = r.data[:len(r.data)-1]
				return ev, nil
			}
			ev = Event{}
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "data":
			if len(r.data)+len(value) > MaxEvent {
				return Event{}, ErrTooLarge
			}
			any = true
			r.data = append(append(r.data, value...), '\n')
		case "event":
			ev.Name = string(value)
		case "id":
			if bytes.IndexByte(value, 0) < 0 {
				ev.ID = string(value)
			}
		}
	}
}

// readLine returns a line without its end, which is CR, LF or both. It never
// waits for a byte after the line's end. At the end of the stream it returns
// what there is with [io.EOF].
func (r *Reader) readLine() ([]byte, error) {
	r.line = r.line[:0]
	for {
		if r.br.Buffered() == 0 {
			if _, err := r.br.Peek(1); err != nil {
				return r.line, err
			}
		}
		buf, _ := r.br.Peek(r.br.Buffered())
		if !r.started {
			// The mark may come in pieces, so it is only taken off when it is whole.
			r.started = true
			if bom := []byte("\xef\xbb\xbf"); bytes.HasPrefix(buf, bom) {
				_, _ = r.br.Discard(len(bom))
				continue
			}
		}
		if r.skipLF {
			r.skipLF = false
			if buf[0] == '\n' {
				_, _ = r.br.Discard(1)
				continue
			}
		}
		i := bytes.IndexAny(buf, "\r\n")
		if i < 0 {
			if len(r.line)+len(buf) > MaxEvent {
				return nil, ErrTooLarge
			}
			r.line = append(r.line, buf...)
			_, _ = r.br.Discard(len(buf))
			continue
		}
		r.line = append(r.line, buf[:i]...)
		r.skipLF = buf[i] == '\r'
		_, _ = r.br.Discard(i + 1)
		return r.line, nil
	}
}
