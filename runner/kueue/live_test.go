//go:build linux && cluster

package kueue

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/executortest"
	"github.com/repromill/repromill/runner/local"
	"github.com/repromill/repromill/runner/pod"
	"github.com/repromill/repromill/runner/sandbox"
)

// The tests of this file need `devcluster up` and its environment. Like the
// programs in pods, the test binary serves its own hidden entry points.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch args := os.Args[2:]; os.Args[1] {
		case "__worker":
			syscall.Exit(local.WorkerMain(args))
		case "__sandbox-init":
			syscall.Exit(sandbox.InitMain(args))
		case "__probe":
			syscall.Exit(pod.ProbeMain(args))
		case "__program":
			syscall.Exit(executortest.Main(args))
		case "__watch":
			syscall.Exit(watchMain(args))
		case "worker":
			exe, _ := os.Executable()
			syscall.Exit(pod.Main(args, exe))
		}
	}
	os.Exit(m.Run())
}

// volumeRoot is the folder behind the devcluster's claim.
func volumeRoot(t testing.TB) string {
	t.Helper()
	root := os.Getenv("REPROMILL_CLUSTER_VOLUME")
	if root == "" {
		t.Fatal(`no cluster: run eval "$(go run ./cmd/devcluster env)" after "go run ./cmd/devcluster up"`)
	}
	return root
}

// folderIn makes a fresh folder on the volume that every user may enter.
func folderIn(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(volumeRoot(t), "test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// selfIn is this test binary on the volume.
func selfIn(t testing.TB, dir string) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, "test")
	if out, err := exec.Command("cp", exe, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(to, 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}

// bareImage pushes an image that holds nothing but the folders every system has.
func bareImage(t testing.TB) string {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, dir := range []string{"tmp", "usr", "usr/bin", "etc"} {
		if err := w.WriteHeader(&tar.Header{Name: dir, Mode: 0o755, Typeflag: tar.TypeDir}); err != nil {
			t.Fatal(err)
		}
	}
	passwd := "root:x:0:0::/:/bin/sh\n"
	if err := w.WriteHeader(&tar.Header{Name: "etc/passwd", Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(passwd))}); err != nil {
		t.Fatal(err)
	}
	w.Write([]byte(passwd))
	w.Close()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	return push(t, "repromill/test-bare", img)
}

func push(t testing.TB, repo string, img v1.Image) string {
	t.Helper()
	ref, err := name.NewTag(os.Getenv("REPROMILL_DEVCLUSTER_REGISTRY")+"/"+repo+":1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return ref.Context().Digest(d.String()).String()
}

func liveConfig(t testing.TB, dir string) Config {
	return Config{
		Namespace: "repromill", Queue: "repromill-small", Root: volumeRoot(t), Dir: filepath.Join(dir, "attempts"), Claim: "repromill-runs",
		Image: bareImage(t), Worker: selfIn(t, dir), CPU: "500m",
	}
}

func liveExecutor(t testing.TB, cfg Config) *Executor {
	t.Helper()
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// clean deletes the Jobs that earlier tests left: names are made of keys, and
// a test uses the same keys every time.
func clean(t testing.TB) {
	t.Helper()
	out, err := exec.Command("kubectl", "delete", "jobs", "--all", "-n", "repromill", "--cascade=foreground", "--timeout=180s").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestConformance(t *testing.T) {
	clean(t)
	dir := folderIn(t)
	cfg := liveConfig(t, dir)
	executortest.Run(t, func(t *testing.T) executortest.Harness {
		return executortest.Harness{
			Executor: liveExecutor(t, cfg), Reopen: func(t *testing.T) runner.Executor { return liveExecutor(t, cfg) },
			Program: []string{cfg.Worker, "__program"}, ReadOnly: []string{cfg.Worker}, Patience: 2 * time.Minute,
			Folder: executortest.FoldersIn(dir),
		}
	})
}
