package server

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/suites/endpoint"
)

// contained is an arm that is served from a container: this program's own server
// without a model, in a base image, with the program in the folder that stands for
// the model.
func contained(t *testing.T) (*Host, spec.Arm) {
	t.Helper()
	base, program := os.Getenv("REPROMILL_TEST_DOCKER_BASE"), os.Getenv("REPROMILL_BINARY")
	if base == "" || program == "" {
		t.Skip("needs Docker, a base image and a static program: run `make e2e-docker`")
	}
	dir := t.TempDir()
	if out, err := exec.Command("cp", program, filepath.Join(dir, "server")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	h, err := newHost(t.TempDir(), "docker:"+base)
	if err != nil {
		t.Fatal(err)
	}
	return h, spec.Arm{Name: "fp8", Model: dir, Flags: []string{filepath.Join(dir, "server"), "load", "server", "--model", "owner/model"}}
}

// containers are those of servers, by the label of one.
func containers(t *testing.T, token string) string {
	t.Helper()
	out, err := exec.Command("docker", "ps", "-aq", "--filter", "label="+label+"="+token).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// TestContainer starts a server in a container, asks it, restarts it and ends it.
func TestContainer(t *testing.T) {
	h, arm := contained(t)
	srv, err := h.Start(t.Context(), arm)
	if err != nil {
		t.Fatal(err)
	}
	s := srv.(*Server)
	defer s.Stop(context.Background())
	before, err := s.Identity(t.Context())
	if err != nil || before.Model != "owner/model" {
		t.Fatalf("%+v %v", before, err)
	}
	c, err := endpoint.New(endpoint.Config{URL: s.Endpoint()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if a, err := c.Ask(t.Context(), endpoint.Request{Messages: []endpoint.Message{{Role: "user", Content: "Hello"}}, MaxTokens: 5}); err != nil || a.Usage.CompletionTokens != 5 {
		t.Errorf("%+v %v", a.Usage, err)
	}
	first := s.proc.token
	if containers(t, first) == "" {
		t.Error("it answers, and there is no container")
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, err := s.Identity(t.Context()); err != nil || !after.StartTime.After(before.StartTime) || after.Since(before).Material {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}
	last := s.proc.token
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, tok := range []string{first, last} {
		if left := containers(t, tok); left != "" {
			t.Errorf("container %s is left", left)
		}
	}
	if r, err := http.Get(s.Endpoint() + "/models"); err == nil {
		r.Body.Close()
		t.Error("the server listens after Stop")
	}
}

// TestContainerOfTheKilled: what a dead supervisor leaves in a container is cleared
// up by whoever watches.
func TestContainerOfTheKilled(t *testing.T) {
	h, arm := contained(t)
	srv, err := h.Start(t.Context(), arm)
	if err != nil {
		t.Fatal(err)
	}
	s := srv.(*Server)
	defer s.Stop(context.Background())
	tok := s.proc.token
	if containers(t, tok) == "" {
		t.Fatal("there is no container, so the test tests nothing")
	}
	if err := syscall.Kill(s.proc.cmd.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an end", func() bool { _, over := s.proc.ended(); return over })
	eventually(t, "an end of the container", func() bool { return containers(t, tok) == "" })
}

// TestContainerWithoutImage says what is missing.
func TestContainerWithoutImage(t *testing.T) {
	h, arm := contained(t)
	h.cfg.How = func(spec.Arm) string { return "docker:localhost:1/none/such:1" }
	_, err := h.Start(t.Context(), arm)
	if err == nil || !strings.Contains(err.Error(), "none/such") {
		t.Errorf("%v", err)
	}
}
