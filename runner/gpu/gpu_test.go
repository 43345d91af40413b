package gpu

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// node makes a root with n GPUs, of which the container has some.
func node(t *testing.T, n int, given ...int) string {
	t.Helper()
	root := t.TempDir()
	put := func(name, text string) {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		put(fmt.Sprintf("proc/driver/nvidia/gpus/0000:%d9:00.0/information", i), fmt.Sprintf("Model: \t\t NVIDIA H200\nIRQ:   \t\t 34\nGPU UUID: \t GPU-%d\nVideo BIOS: \t 96.00.99.00.01\nDevice Minor: \t %d\n", i, n-1-i))
	}
	put("proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.124.06  Release Build\nGCC version: 12\n")
	for _, i := range given {
		put(fmt.Sprintf("dev/nvidia%d", i), "")
	}
	put("dev/nvidiactl", "")
	return root
}

func TestLook(t *testing.T) {
	for name, tc := range map[string]struct {
		root string
		want Seen
	}{
		"those given":     {node(t, 4, 0, 2), Seen{[]string{"GPU-1", "GPU-3"}, "570.124.06"}},
		"no device files": {node(t, 2), Seen{[]string{"GPU-0", "GPU-1"}, "570.124.06"}},
		"ten or more":     {node(t, 12, 11), Seen{[]string{"GPU-0"}, "570.124.06"}},
		"no module":       {t.TempDir(), Seen{}},
	} {
		if got := Look(tc.root); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %+v, want %+v", name, got, tc.want)
		}
	}
}

func TestWriteAndRead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "gpus.json")
	if got := Read(name); !reflect.DeepEqual(got, Seen{}) {
		t.Errorf("a file that is not there tells %+v", got)
	}
	want := Seen{[]string{"GPU-1"}, "570"}
	if err := Write(name, want); err != nil {
		t.Fatal(err)
	}
	if got := Read(name); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	if err := os.WriteFile(name, []byte(`{"uuids":["GPU-1"],"driver":7`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := Read(name); !reflect.DeepEqual(got, Seen{}) {
		t.Errorf("a damaged file tells %+v", got)
	}
	if err := Write(filepath.Join(name, "x"), want); err == nil {
		t.Error("no error where nothing can be written")
	}
}
