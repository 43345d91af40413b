//go:build linux

package server

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// smi is a program that answers as nvidia-smi does.
func smi(t *testing.T, list, apps string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"list": list, "apps": apps} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "nvidia-smi")
	script := fmt.Sprintf("#!/bin/sh\ncase $1 in\n%s) cat %s/list;;\n%s) cat %s/apps;;\n*) echo bad option; exit 2;;\nesac\n", gpuQuery, dir, appQuery, dir)
	// Written by another process, so that no child of this one holds it open for
	// writing while it is executed.
	cmd := exec.Command("sh", "-c", `cat > "$0" && chmod 755 "$0"`, path)
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return path
}

const fourGPUs = `0, GPU-aaaa, NVIDIA H200, 143771, 4, 570.86.15, Disabled
1, GPU-bbbb, NVIDIA H200, 143771, 120344, 570.86.15, Disabled
2, GPU-cccc, NVIDIA H200, 143771, 4, 570.86.15, Disabled
3, GPU-dddd, NVIDIA H200, 143771, 4, 570.86.15, Enabled
`

func TestGPUsAreChosen(t *testing.T) {
	h := host(t, "--deaf={gpus}x", func(c *Config) { c.SMI = smi(t, fourGPUs, "GPU-bbbb, 4242\n") })
	a := arm()
	l, err := h.take(t.Context(), a.Name, 2)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.visible()["CUDA_VISIBLE_DEVICES"]; got != "0,2" {
		t.Errorf("visible: %s", got)
	}
	_, err = h.take(t.Context(), "other", 1)
	for _, want := range []string{"0 of 4 are free", "another server of ours holds it", "process 4242 computes", "divided by MIG"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	l.release()
	l, err = h.take(t.Context(), "other", 1)
	if err != nil {
		t.Fatal(err)
	}
	l.release()
	h.cfg.Environ = append(h.cfg.Environ, "CUDA_VISIBLE_DEVICES=2")
	if l, err = h.take(t.Context(), "other", 1); err != nil || l.visible()["CUDA_VISIBLE_DEVICES"] != "2" {
		t.Errorf("%+v, %v", l, err)
	}
	l.release()
}

func TestNoGPUs(t *testing.T) {
	h := host(t, "", func(c *Config) { c.SMI = "/no/such/nvidia-smi" })
	_, err := h.take(t.Context(), "fp8", 1)
	var user *UserError
	if !errors.As(err, &user) || !strings.Contains(user.Msg, "no nvidia-smi") || !strings.Contains(user.Fix, "--endpoint fp8=URL") {
		t.Errorf("%v", err)
	}
	h.cfg.SMI = smi(t, "No devices were found\n", "")
	if _, err := h.take(t.Context(), "fp8", 1); err == nil || !strings.Contains(err.Error(), "0 of 0 are free") {
		t.Errorf("%v", err)
	}
}

// TestServerSeesItsGPUs: the environment of the process is the lease's.
func TestServerSeesItsGPUs(t *testing.T) {
	path := smi(t, fourGPUs, "")
	h, err := newHost(t.TempDir(), "CUDA_X={gpus} sh -c 'echo saw $CUDA_VISIBLE_DEVICES; exec "+os.Args[0]+" __serve --port {port} --model {gpus}'", func(c *Config) { c.SMI = path })
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, h)
	b, err := os.ReadFile(s.Facts().Log)
	if err != nil || !strings.HasPrefix(string(b), "saw 0\n") {
		t.Errorf("%s, %v", b, err)
	}
	id, err := s.Identity(t.Context())
	if err != nil || len(id.GPUUUIDs) != 1 || id.GPUUUIDs[0] != "GPU-aaaa" || id.Driver != "570.86.15" {
		t.Errorf("%+v, %v", id, err)
	}
}

func FuzzParseGPUs(f *testing.F) {
	f.Add([]byte(fourGPUs), []byte("GPU-bbbb, 4242\n"))
	f.Add([]byte("0, GPU-a, \"x\", [N/A], [N/A], 1, [N/A]"), []byte("x"))
	f.Fuzz(func(t *testing.T, list, apps []byte) {
		gpus, err := parseGPUs(list, apps)
		if err == nil {
			for _, g := range gpus {
				_ = g.Busy()
			}
		}
	})
}
