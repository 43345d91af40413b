package pod

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/repromill/repromill/runner"
)

var (
	gpuUUID   = regexp.MustCompile(`(?m)^GPU UUID:\s*(\S+)`)
	gpuDriver = regexp.MustCompile(`Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)`)
)

// describeGPUs adds which GPUs the attempt had and what drove them, as NVIDIA's
// kernel module tells it in /proc/driver/nvidia. There is nothing to add where
// the module is missing, as on a node whose GPUs are simulated.
func describeGPUs(p *runner.Placement, gpus int) {
	if gpus > 0 {
		gpusBelow(p, "/proc/driver/nvidia")
	}
}

func gpusBelow(p *runner.Placement, proc string) {
	list, _ := filepath.Glob(filepath.Join(proc, "gpus", "*", "information"))
	for _, name := range list {
		b, err := os.ReadFile(name)
		if m := gpuUUID.FindSubmatch(b); err == nil && m != nil {
			p.GPUUUIDs = append(p.GPUUUIDs, string(m[1]))
		}
	}
	if b, err := os.ReadFile(filepath.Join(proc, "version")); err == nil {
		if m := gpuDriver.FindStringSubmatch(strings.TrimSpace(string(b))); m != nil {
			p.Driver = m[1]
		}
	}
}
