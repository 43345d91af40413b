package engine

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
)

// message is one line of the engine's answers to builds, pulls, pushes, loads
// and imports.
type message struct {
	ID             string          `json:"id"`
	Stream         string          `json:"stream"`
	Status         string          `json:"status"`
	ProgressDetail json.RawMessage `json:"progressDetail"`
	Aux            json.RawMessage `json:"aux"`
	Error          string          `json:"error"`
	ErrorDetail    struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	} `json:"errorDetail"`
}

// engineError is an error that the engine reports inside of a stream.
type engineError struct {
	msg  string
	code int
}

func (e *engineError) Error() string { return e.msg }

// messages calls fn for every message until the stream's end or its error.
func messages(r io.Reader, fn func(message)) error {
	dec := json.NewDecoder(r)
	for {
		var m message
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if m.Error != "" || m.ErrorDetail.Message != "" {
			msg := m.ErrorDetail.Message
			if msg == "" {
				msg = m.Error
			}
			return &engineError{msg, m.ErrorDetail.Code}
		}
		fn(m)
	}
}

// traceLog finds what commands printed in a message of BuildKit's: protocol
// buffers in base64, StatusResponse{vertexes 1, statuses 2, logs 3}, where a
// log is VertexLog{vertex 1, timestamp 2, stream 3, msg 4} and a vertex has its
// name in field 3 (moby/buildkit api/services/control/control.proto).
func traceLog(aux json.RawMessage, write func([]byte)) {
	var text string
	if json.Unmarshal(aux, &text) != nil {
		return
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return
	}
	fields(b, func(num int, vertex []byte) {
		switch num {
		case 1:
			started := false
			var name []byte
			fields(vertex, func(n int, v []byte) {
				switch n {
				case 3:
					name = v
				case 5:
					started = true
				case 6:
					name = nil // completed: it was named when it started
				}
			})
			if started && len(name) > 0 {
				write(append(name, '\n'))
			}
		case 3:
			fields(vertex, func(n int, v []byte) {
				if n == 4 {
					write(v)
				}
			})
		}
	})
}

// fields calls fn for every length-delimited field of a protocol buffer and
// stops where the bytes make no sense.
func fields(b []byte, fn func(num int, v []byte)) {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return
		}
		b = b[n:]
		switch tag & 7 {
		case 0:
			if _, n = binary.Uvarint(b); n <= 0 {
				return
			}
		case 1:
			n = 8
		case 5:
			n = 4
		case 2:
			size, k := binary.Uvarint(b)
			if k <= 0 || size > uint64(len(b)-k) {
				return
			}
			fn(int(tag>>3), b[k:k+int(size):k+int(size)])
			n = k + int(size)
		default:
			return
		}
		if n > len(b) {
			return
		}
		b = b[n:]
	}
}
