package git

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Limits bounds one checkout, submodules included. A zero field means its
// default.
type Limits struct {
	TransferBytes  int64         `json:"transfer_bytes"`  // received from the network, after HTTP decoding; 2 GiB
	Files          int           `json:"files"`           // files in the tree; 50,000
	TotalBytes     int64         `json:"total_bytes"`     // of all files; 2 GiB
	FileBytes      int64         `json:"file_bytes"`      // of one file; 512 MiB
	MemoryBytes    int64         `json:"memory_bytes"`    // address space the child may add to what it starts with; 4 GiB
	Time           time.Duration `json:"time"`            // wall clock of the checkout; 10 min
	Idle           time.Duration `json:"idle"`            // without one byte from the server; 60 s
	SubmoduleDepth int           `json:"submodule_depth"` // submodules within submodules; 3
}

func (l Limits) withDefaults() Limits {
	def := func(p *int64, v int64) {
		if *p <= 0 {
			*p = v
		}
	}
	def(&l.TransferBytes, 2<<30)
	def(&l.TotalBytes, 2<<30)
	def(&l.FileBytes, 512<<20)
	def(&l.MemoryBytes, 4<<30)
	def((*int64)(&l.Time), int64(10*time.Minute))
	def((*int64)(&l.Idle), int64(time.Minute))
	if l.Files <= 0 {
		l.Files = 50_000
	}
	if l.SubmoduleDepth <= 0 {
		l.SubmoduleDepth = 3
	}
	return l
}

// The caps a [LimitError] can name; each is the JSON name of a field of
// [Limits].
const (
	CapTransfer = "transfer_bytes"
	CapFiles    = "files"
	CapTotal    = "total_bytes"
	CapFile     = "file_bytes"
	CapMemory   = "memory_bytes"
	CapTime     = "time"
	CapIdle     = "idle"
)

// LimitError says that a cap stopped the checkout. Nothing of it was kept.
type LimitError struct {
	Repo  string `json:"repo,omitempty"`
	Cap   string `json:"cap"`            // one of the Cap constants
	Limit int64  `json:"limit"`          // bytes, files or nanoseconds
	Got   int64  `json:"got,omitempty"`  // what was met, 0 where it is unknown
	Path  string `json:"path,omitempty"` // the file, for CapFile
	What  string `json:"what,omitempty"` // what was counted, when the cap's name does not say it
}

func (e *LimitError) Error() string {
	s := "clone stopped"
	if e.Repo != "" {
		s = "clone " + e.Repo + " stopped"
	}
	switch e.Cap {
	case CapTransfer:
		s += fmt.Sprintf(": the server sent more than %s", size(e.Limit))
	case CapFiles:
		s += fmt.Sprintf(": it has more than %d files", e.Limit)
	case CapTotal:
		s += fmt.Sprintf(": its files are larger than %s together", size(e.Limit))
	case CapFile:
		name := "a file"
		if e.Path != "" {
			name = fmt.Sprintf("file %q", e.Path)
		}
		s += fmt.Sprintf(": %s has %s, the cap is %s", name, size(e.Got), size(e.Limit))
	case CapMemory:
		s += fmt.Sprintf(": unpacking needed more than %s of memory", size(e.Limit))
	case CapTime:
		s += fmt.Sprintf(": it took longer than %v", time.Duration(e.Limit))
	case CapIdle:
		s += fmt.Sprintf(": the server sent nothing for %v", time.Duration(e.Limit))
	default:
		s += ": cap " + e.Cap + " reached"
	}
	if e.What != "" {
		s += " (" + e.What + ")"
	}
	return s + "; " + e.UserError()
}

// UserError returns how to raise the cap.
func (e *LimitError) UserError() string {
	if e.Cap == CapTime || e.Cap == CapIdle {
		return fmt.Sprintf("try again, or set git.%s higher in the configuration", e.Cap)
	}
	return fmt.Sprintf("set git.%s higher in the configuration if this repository is meant to be that large", e.Cap)
}

// size prints bytes the way a person reads them.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%.4g %ciB", v, units[i])
}

// budget is what one checkout has used so far over all its transfers.
type budget struct {
	limits   Limits
	received atomic.Int64 // bytes from the network
	files    int
	bytes    int64
}

// left returns the limits for the next tree.
func (b *budget) left() Limits {
	l := b.limits
	l.Files -= b.files
	l.TotalBytes -= b.bytes
	return l
}
