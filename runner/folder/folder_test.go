package folder_test

import (
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/folder"
)

// TestFolder writes, reads and refuses what is another attempt's.
func TestFolder(t *testing.T) {
	root, err := folder.Root(t.TempDir() + "/attempts")
	if err != nil {
		t.Fatal(err)
	}
	f := folder.Folder{Dir: root, Point: "x"}
	key := runner.AttemptKey{RunID: "r", Stage: "s"}
	if err := f.CheckKey(key); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty folder: %v", err)
	}
	var points []string
	hook := func(p string) { points = append(points, p) }
	if err := f.Write(folder.Attempt, map[string]string{"key": key.String()}, folder.Power, hook); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Mark("cancel", hook), f.Mark("cancel", hook)); err != nil {
		t.Fatal(err)
	}
	want := []string{"x:attempt.json:before", "x:attempt.json:rename", "x:attempt.json:after", "x:cancel:before", "x:cancel:after"}
	if !slices.Equal(points, want) {
		t.Errorf("points %q", points)
	}
	if err := f.CheckKey(key); err != nil {
		t.Error(err)
	}
	if err := f.CheckKey(runner.AttemptKey{RunID: "other"}); err == nil {
		t.Error("the key of another attempt is taken")
	}
	if _, ok, err := f.Status("status.json"); ok || err != nil {
		t.Errorf("a status that is not there: %v, %v", ok, err)
	}
	if err := f.Write("status.json", runner.Status{Phase: runner.Running}, folder.Process, hook); err != nil {
		t.Fatal(err)
	}
	if st, ok, err := f.Status("status.json"); !ok || err != nil || st.Phase != runner.Running {
		t.Errorf("%+v, %v, %v", st, ok, err)
	}
	if err := os.WriteFile(f.Path("status.json")+folder.TmpSuffix, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f.Tidy("status.json")
	if f.Has("status.json" + folder.TmpSuffix) {
		t.Error("what a dead writer left is there")
	}
}
