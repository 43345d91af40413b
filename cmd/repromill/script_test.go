package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/repromill/repromill/cmd/repromill/internal/cli"
	"github.com/repromill/repromill/runner/engine/enginetest"
)

var update = flag.Bool("update", false, "rewrite the golden parts of the scripts")

// noRaceSleep keeps a process that was built with the race detector from
// waiting a second at its end.
const noRaceSleep = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	// The program starts itself again for its workers; so must the test binary.
	if len(os.Args) > 1 && os.Args[1] == modelEntry {
		os.Exit(modelMain(os.Args[2:]))
	}
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "__") {
		main()
	}
	testscript.Main(m, map[string]func(){"repromill": func() {
		os.Exit(cli.Main(context.Background(), os.Args, os.Environ(), os.Stdin, os.Stdout, os.Stderr))
	}})
}

// exits runs a command that must end with the given code: exits CODE COMMAND…
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG…]")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v: %v", args[1:], err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("%v: exit code %d, want %s", args[1:], code, args[0])
	}
}

// scriptHub is a hub with one open model and one whose files are behind
// conditions.
func scriptHub(t *testing.T) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/models/lab/open", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"id":"lab/open","gated":false,"usedStorage":2500000}`)
	})
	mux.HandleFunc("GET /api/models/lab/gated", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"id":"lab/gated","gated":"manual","usedStorage":2500000}`)
	})
	mux.HandleFunc("GET /api/models/lab/gated/auth-check", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Error-Code", "GatedRepo")
		w.Header().Set("X-Error-Message", "Access to model lab/gated is restricted.")
		w.WriteHeader(http.StatusUnauthorized)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv
}

// models makes a mirror of two models and their data sets, and servers for them
// that are right on a share of the questions: models QUESTIONS FP8 NVFP4. Their
// addresses are in $FP8 and $NVFP4.
func models(ts *testscript.TestScript, neg bool, args []string) {
	var questions int
	var right [2]float64
	if n, err := fmt.Sscan(strings.Join(args, " "), &questions, &right[0], &right[1]); neg || n != 3 || err != nil {
		ts.Fatalf("usage: models QUESTIONS FP8 NVFP4")
	}
	dir := ts.MkAbs("models")
	if err := modelMirror(dir, questions); err != nil {
		ts.Fatalf("make mirror: %v", err)
	}
	ts.Setenv("MODELS", dir)
	for i, name := range []string{"FP8", "NVFP4"} {
		s := modelServer("org/tiny-"+name, name, right[i], 0, 0)
		ts.Defer(s.Close)
		ts.Setenv(name, s.URL)
	}
}

// checkpoint writes a small model with random weights: checkpoint DIR [CONTEXT].
func checkpoint(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: checkpoint DIR [CONTEXT]")
	}
	shape := enginetest.Tiny
	if len(args) == 2 {
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		shape.Context = n
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(enginetest.WriteFolder(dir, shape))
}

// TestScripts runs the real command through testdata/script/*.txtar.
func TestScripts(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	hub := scriptHub(t)
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"checkpoint": checkpoint, "exits": exits, "models": models, "siteresults": siteResults, "looks": looks,
		},
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, ".home")
			env.Setenv("HOME", home)
			env.Setenv("USER", "tester")
			env.Setenv("REPROMILL_EXECUTOR", "local") // whatever engine this machine has
			env.Vars = append(env.Vars, noRaceSleep)
			env.Setenv("XDG_STATE_HOME", filepath.Join(home, "state"))
			env.Setenv("XDG_DATA_HOME", filepath.Join(home, "data"))
			env.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(home, "config"))
			env.Setenv("ROOT", root)
			env.Setenv("HUB", hub.URL)
			env.Setenv("EXAMPLES", filepath.Join(root, "examples"))
			env.Setenv("MIRROR", filepath.Join(root, "examples", "mirror"))
			return os.MkdirAll(home, 0o755)
		},
	})
}
