package content_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/repromill/repromill/runner/content"
)

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestCheckpoint: what engines read counts, the rest does not, and links do not
// hide it.
func TestCheckpoint(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"config.json": "{}", "model.safetensors": "weights", "README.md": "a card", ".lock": "x", "picture.png": "p"})
	if err := os.Mkdir(filepath.Join(dir, "runs.json"), 0o755); err != nil {
		t.Fatal(err)
	}
	sum, files, err := content.Checkpoint(t.Context(), dir, content.Config{})
	if err != nil || sum.Files != 2 || sum.Bytes != 9 || len(files) != 2 || files[1].Name != "model.safetensors" || files[1].Bytes != 7 {
		t.Fatalf("%+v %+v %v", sum, files, err)
	}
	if _, err := exec.LookPath("sha256sum"); err == nil {
		out, err := exec.Command("sh", "-c", "cd "+dir+" && sha256sum config.json model.safetensors | sha256sum").Output()
		if err != nil || !strings.HasPrefix(string(out), sum.SHA256+" ") {
			t.Errorf("sha256sum says %s, %v, not %s", out, err, sum.SHA256)
		}
	}

	blobs, links := t.TempDir(), t.TempDir()
	write(t, blobs, map[string]string{"a": "{}", "b": "weights"})
	for to, name := range map[string]string{"a": "config.json", "b": "model.safetensors"} {
		if err := os.Symlink(filepath.Join(blobs, to), filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	if got, _, err := content.Checkpoint(t.Context(), links, content.Config{}); err != nil || got != sum {
		t.Errorf("by links: %+v %v, not %+v", got, err, sum)
	}

	write(t, dir, map[string]string{"model.safetensors": "Weights"})
	if got, _, err := content.Checkpoint(t.Context(), dir, content.Config{Workers: 1}); err != nil || got.SHA256 == sum.SHA256 {
		t.Errorf("other weights are called the same: %+v %v", got, err)
	}
}

func TestCheckpointRefuses(t *testing.T) {
	empty, dangling := t.TempDir(), t.TempDir()
	if err := os.Symlink("nowhere", filepath.Join(dangling, "model.safetensors")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{empty, dangling, filepath.Join(empty, "x")} {
		_, _, err := content.Checkpoint(t.Context(), dir, content.Config{})
		var user *content.Error
		if !errors.As(err, &user) || user.UserError() == "" {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
