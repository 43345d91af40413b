//go:build linux && cluster

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// faultSite is a site beside others: it has a queue and a state of its own, and
// shares mirror and image.
type faultSite struct {
	suiteSite
	volume, namespace, gates string
	settings                 string // all but the end
}

func (s *faultSite) configure(t *testing.T, settings string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, "config.yaml"), []byte(settings), 0o644); err != nil {
		t.Fatal(err)
	}
}

// shut and open are the gates that the servers of a site wait at.
func (s *faultSite) shut(t *testing.T, gates ...string) {
	t.Helper()
	for _, g := range gates {
		if err := os.WriteFile(filepath.Join(s.volume, "repromill", "cache", s.gates, g), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *faultSite) open(gates ...string) {
	for _, g := range gates {
		_ = os.Remove(filepath.Join(s.volume, "repromill", "cache", s.gates, g))
	}
}

// faultRun is a run that goes on while things happen.
type faultRun struct {
	faultSite
	cmd    *exec.Cmd
	told   lockedBuffer
	ended  chan struct{}
	err    error
	folder string // see shards
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// begin starts a run whose servers have gates.
func (s faultSite) begin(t *testing.T, fp8 string, more ...string) *faultRun {
	t.Helper()
	return s.start(t, s.suite(0.90, "--gates "+s.gates+" "+fp8, "", more...)...)
}

func (s faultSite) start(t *testing.T, args ...string) *faultRun {
	t.Helper()
	r := &faultRun{faultSite: s, cmd: s.command(args...), ended: make(chan struct{})}
	r.cmd.Stdout, r.cmd.Stderr = &r.told, &r.told
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		r.err = r.cmd.Wait()
		close(r.ended)
	}()
	t.Cleanup(func() {
		r.open(gateLoad, gateAsk, gateEnd, gateSame)
		r.cmd.Process.Kill()
		<-r.ended
		if t.Failed() {
			t.Logf("the run said:\n%s\nits clients said:\n%s", &r.told, r.log())
		}
	})
	return r
}

// until waits for a state, for as long as the run goes on.
func (r *faultRun) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(100 * time.Millisecond) {
		select {
		case <-r.ended:
			if !ok() {
				t.Fatalf("it ended (%v) before: %s", r.err, what)
			}
			return
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("still waiting: %s\n%s", what, kubectl(t, "get", "pods,jobs,workloads", "-n", r.namespace, "-o", "wide"))
		}
	}
}

// says waits until the run has told this so many times.
func (r *faultRun) says(t *testing.T, text string, times int) {
	t.Helper()
	r.until(t, fmt.Sprintf("%q said %d times", text, times), func() bool { return r.said(text) >= times })
}

func (r *faultRun) said(text string) int { return strings.Count(r.told.String(), text) }

// over waits for the end of the run.
func (r *faultRun) over(t *testing.T) {
	t.Helper()
	select {
	case <-r.ended:
	case <-time.After(4 * time.Minute):
		t.Fatalf("it does not end\n%s", kubectl(t, "get", "pods,jobs,workloads", "-n", r.namespace, "-o", "wide"))
	}
}

var runRE = regexp.MustCompile(`(?m)^run ([0-9A-Z]{26})$`)

// id is the run's, "" before it is told.
func (r *faultRun) id() string {
	if m := runRE.FindStringSubmatch(r.told.String()); m != nil {
		return m[1]
	}
	return ""
}

// shards is the folder of the run's blocks.
func (r *faultRun) shards() string {
	if r.folder == "" {
		if id := r.id(); id != "" {
			r.folder = filepath.Join(r.volume, "repromill", "runs", id, "answers", "mmlu-pro", "shards")
		}
	}
	return r.folder
}

func (r *faultRun) log() string {
	b, _ := os.ReadFile(filepath.Join(r.shards(), "log"))
	return string(b)
}

// asking waits until the given number of clients have begun a block and the last of
// them has sent something.
func (r *faultRun) asking(t *testing.T, block, clients int) {
	t.Helper()
	r.until(t, "questions are asked", func() bool {
		if strings.Count(r.log(), fmt.Sprintf("block %d begins", block)) < clients {
			return false
		}
		owner, err := os.ReadFile(filepath.Join(r.shards(), "blocks", fmt.Sprint(block-1), "owner"))
		if err != nil {
			return false
		}
		info, err := os.Stat(filepath.Join(r.shards(), "blocks", fmt.Sprint(block-1), "pods", strings.TrimSpace(string(owner)), "sent"))
		return err == nil && info.Size() > 0
	})
}

// complete waits for the end of a block.
func (r *faultRun) complete(t *testing.T, block int) {
	t.Helper()
	r.until(t, fmt.Sprintf("block %d is complete", block), func() bool {
		_, err := os.Stat(filepath.Join(r.shards(), "blocks", fmt.Sprint(block-1), "end.json"))
		return err == nil
	})
}

// bystander is a node that takes no pods and stays ready until the test ends:
// where all nodes of a cluster are silent, none of their pods is evicted.
func bystander(t *testing.T) {
	t.Helper()
	apply(t, `apiVersion: v1
kind: Node
metadata: {name: repromill-bystander}
spec: {unschedulable: true, taints: [{key: repromill.dev/bystander, effect: NoExecute}]}
`)
	beat := func() error {
		now := time.Now().UTC().Format(time.RFC3339)
		return exec.Command("kubectl", "patch", "node", "repromill-bystander", "--subresource=status", "--type=merge", "-p",
			fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":"True","reason":"Test","message":"","lastHeartbeatTime":%q,"lastTransitionTime":%q}]}}`, now, now)).Run()
	}
	if err := beat(); err != nil {
		t.Fatal(err)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			case <-time.After(3 * time.Second):
				_ = beat() // the next one may do
			}
		}
	}()
	t.Cleanup(func() {
		close(end)
		<-ended
		kubectl(t, "delete", "node", "repromill-bystander", "--wait=false")
	})
}

// frozen has a process of the development cluster stand still for a while.
func frozen(t *testing.T, name string, meanwhile func()) {
	t.Helper()
	out, err := exec.Command("pgrep", "-f", "k8s-.*/"+name+" ").Output()
	var pid int
	if _, serr := fmt.Sscan(string(out), &pid); err != nil || serr != nil {
		t.Fatalf("no process %s: %v", name, err)
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(pid, syscall.SIGCONT)
	meanwhile()
}

// tag gives an image of the registry another name.
func tag(t *testing.T, image, as string) {
	t.Helper()
	from, err := name.ParseReference(image, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	to, err := name.NewTag(as, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	img, err := remote.Image(from, remote.WithContext(t.Context()))
	if err == nil {
		err = remote.Write(to, img, remote.WithContext(t.Context()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// gpuPlan is the plan of a suite whose arms take a GPU each.
func (s faultSite) gpuPlan(t *testing.T, sku string) string {
	t.Helper()
	var plan map[string]any
	s.json(t, &plan, "plan", "org/tiny-NVFP4", "--baseline", "org/tiny-FP8", "--suites", "mmlu-pro", "--margin", "5pt", "--max-tokens", "256", "--mirror", s.mirror)
	for _, suite := range plan["suites"].([]any) {
		for _, arm := range suite.(map[string]any)["arms"].([]any) {
			arm.(map[string]any)["sku"], arm.(map[string]any)["gpus"] = sku, 1
		}
	}
	b, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(s.dir, "plan.json")
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// fill writes until there is no room.
func fill(t *testing.T, name string) {
	t.Helper()
	w, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for size := 1 << 20; size > 0; {
		if _, err := w.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
