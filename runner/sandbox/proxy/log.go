package proxy

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// FileLog writes records to a file, one JSON object per line, and remembers
// what was refused. It is made for [Config].Log; a nil FileLog has nothing.
type FileLog struct {
	Path string
	Now  func() time.Time

	mu      sync.Mutex
	lines   int
	refused []string
}

// Untrusted code decides how many requests there are.
const (
	maxLines   = 10000
	maxRefused = 5
)

// Line is one line of the file.
type Line struct {
	Time time.Time `json:"time"`
	Record
}

// Add writes one record.
func (n *FileLog) Add(rec Record) {
	n.mu.Lock()
	defer n.mu.Unlock()
	rec.Host, rec.Why = clip(rec.Host), clip(rec.Why)
	if !rec.Allowed {
		n.refused = remember(n.refused, rec.Host)
	}
	if n.lines++; n.lines > maxLines {
		return
	}
	b, err := json.Marshal(Line{n.Now().UTC(), rec})
	if err != nil {
		return
	}
	f, err := os.OpenFile(n.Path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	f.Write(append(b, '\n'))
}

func remember(list []string, host string) []string {
	if len(list) < maxRefused && !slices.Contains(list, host) {
		list = append(list, host)
	}
	return list
}

func clip(s string) string {
	if len(s) > 300 {
		return strings.ToValidUTF8(s[:300], "") + "…"
	}
	return s
}

// Refused names the first hosts that were refused, separated by commas.
func (n *FileLog) Refused() string {
	if n == nil {
		return ""
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.refused, ", ")
}

// RefusedIn is Refused for a file that another process wrote.
func RefusedIn(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	var list []string
	for line := range strings.Lines(string(b)) {
		var l Line
		if json.Unmarshal([]byte(line), &l) == nil && !l.Allowed {
			list = remember(list, l.Host)
		}
	}
	return strings.Join(list, ", ")
}
