// Package gpu says which GPUs a container has and what drives them, as NVIDIA's
// kernel module tells it, and carries that to another container of the same pod.
// Nothing is told where the module is missing, as on a node whose GPUs are
// simulated.
package gpu

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/repromill/repromill/results/atomicfile"
)

var (
	uuid   = regexp.MustCompile(`(?m)^GPU UUID:\s*(\S+)`)
	minor  = regexp.MustCompile(`(?m)^Device Minor:\s*(\d+)`)
	driver = regexp.MustCompile(`Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)`)
)

// Seen is what a container has.
type Seen struct {
	UUIDs  []string `json:"uuids,omitempty"`
	Driver string   `json:"driver,omitempty"`
}

// Look reads /proc/driver/nvidia below root, which is "/" but for tests. A runtime
// may show all GPUs of the node there and give the container some: those whose
// device files it has.
func Look(root string) (s Seen) {
	proc := filepath.Join(root, "proc", "driver", "nvidia")
	given, _ := filepath.Glob(filepath.Join(root, "dev", "nvidia[0-9]*"))
	list, _ := filepath.Glob(filepath.Join(proc, "gpus", "*", "information"))
	for _, name := range list {
		b, err := os.ReadFile(name)
		m := uuid.FindSubmatch(b)
		if err != nil || m == nil {
			continue
		}
		if n := minor.FindSubmatch(b); n != nil && len(given) > 0 {
			if _, err := os.Stat(filepath.Join(root, "dev", "nvidia"+string(n[1]))); err != nil {
				continue
			}
		}
		s.UUIDs = append(s.UUIDs, string(m[1]))
	}
	if b, err := os.ReadFile(filepath.Join(proc, "version")); err == nil {
		if m := driver.FindStringSubmatch(strings.TrimSpace(string(b))); m != nil {
			s.Driver = m[1]
		}
	}
	return s
}

// Write leaves what this container has in a file.
func Write(name string, s Seen) error {
	b, err := json.Marshal(s)
	if err == nil {
		err = atomicfile.Write(name, b, atomicfile.Options{})
	}
	if err != nil {
		return fmt.Errorf("write GPUs: %w", err)
	}
	return nil
}

// Read is what another container has left. A file that cannot be read tells
// nothing: its writer may have seen none.
func Read(name string) (s Seen) {
	b, err := os.ReadFile(name)
	if err != nil || json.Unmarshal(b, &s) != nil {
		return Seen{}
	}
	return s
}
