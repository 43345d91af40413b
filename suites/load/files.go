package load

import (
	"context"
	"fmt"
)

// reserve is how many files are left for what is opened beside the streams:
// metrics of servers, results, connections that are being replaced.
const reserve = 64

// FilesError says that a cell needs more open files than the system allows.
type FilesError struct{ Streams, Files int }

func (e *FilesError) Error() string {
	return fmt.Sprintf("%d concurrent streams take as many open files, and this process may open %d more", e.Streams, max(0, e.Files))
}

// UserError returns the fix.
func (e *FilesError) UserError() string {
	return fmt.Sprintf("raise the limit (`ulimit -n %d`, or LimitNOFILE= of a service), or ask for fewer streams", e.Streams+4*reserve)
}

// bound makes the slots. A closed loop that cannot have its files is refused
// before anything is sent; an open loop, of which nobody knows how many requests
// will be in flight, is bounded, and what waits for a file is counted.
func (c *cell) bound() error {
	most := c.MaxOpen
	files := c.Files
	if files == 0 {
		free, known := freeFiles()
		if !known {
			free = 1 << 20
		}
		files = free - reserve
		for _, e := range c.Endpoints {
			if kept, ok := e.(interface{ Idle() int }); ok {
				files += kept.Idle() // they are used again
			}
		}
	}
	need := c.s.Concurrency
	if c.s.Mode == Open {
		need = min(most, len(c.s.Requests)) // what the user asked for
		if files < 1 {
			need = max(1, need)
		}
	} else {
		need = min(need, len(c.s.Requests))
	}
	if need > files {
		return &FilesError{need, files}
	}
	if c.s.Mode == Open && most == 0 && files < len(c.s.Requests) {
		most, c.files = files, files
	}
	if most > 0 {
		c.slots = make(chan struct{}, most)
	}
	return nil
}

// slot waits for one.
func (c *cell) slot(ctx context.Context) error {
	select {
	case c.slots <- struct{}{}:
		return nil
	default:
	}
	if c.files > 0 {
		c.waited.Add(1)
	}
	select {
	case c.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
