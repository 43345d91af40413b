//go:build linux && cluster

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// weightsHub is a hub on the node's address, with the files of a mirror and with
// weights, the second piece of which it holds back once.
type weightsHub struct {
	*httptest.Server
	weights []byte
	sent    atomic.Int64
	held    chan struct{} // closed when somebody waits for that piece
	release chan struct{}
	once    sync.Once
}

func newWeightsHub(t *testing.T, mirror string) *weightsHub {
	t.Helper()
	at, err := url.Parse(os.Getenv("REPROMILL_DEVCLUSTER_BUCKET"))
	if err != nil {
		t.Fatal(err)
	}
	node, err := url.Parse(at.Query().Get("endpoint"))
	if err != nil || node.Hostname() == "" {
		t.Fatalf("the development cluster has no address: %v", err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(node.Hostname(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	const size = 40 << 20
	header := fmt.Appendf(nil, `{"w":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}`, size, size)
	h := &weightsHub{weights: append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), append(header, make([]byte, size)...)...), held: make(chan struct{}), release: make(chan struct{})}
	files := http.FileServer(http.Dir(filepath.Join(mirror, "huggingface.co")))
	h.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/model.safetensors"):
			if strings.HasPrefix(r.Header.Get("Range"), fmt.Sprintf("bytes=%d-", 32<<20)) {
				h.once.Do(func() {
					close(h.held)
					<-h.release
				})
			}
			if r.Header.Get("Range") == "" || strings.HasSuffix(r.Header.Get("Range"), fmt.Sprint("-", 32<<20-1)) {
				h.sent.Add(1)
			}
			http.ServeContent(w, r, "f", time.Unix(1_790_000_000, 0), bytes.NewReader(h.weights))
		case strings.Contains(r.URL.Path, "/revision/"):
			sum := sha256.Sum256(h.weights)
			model, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/api/models/"), "/revision/")
			json.NewEncoder(w).Encode(map[string]any{"id": model, "sha": filepath.Base(r.URL.Path), "siblings": []any{
				map[string]any{"rfilename": "config.json"},
				map[string]any{"rfilename": "model.safetensors", "size": len(h.weights), "lfs": map[string]any{"sha256": hex.EncodeToString(sum[:]), "size": len(h.weights)}}}})
		default:
			files.ServeHTTP(w, r)
		}
	}))
	h.Listener.Close()
	h.Listener = l
	h.Start()
	t.Cleanup(func() {
		h.CloseClientConnections() // a pod that was killed leaves one behind that nobody ends
		h.Close()
	})
	return h
}

// TestClusterSeed: a pod brings weights and data sets to the cache, is killed in
// the middle and goes on; the servers and the client then need no network.
func TestClusterSeed(t *testing.T) {
	s := newSuiteSite(t, 60, "cluster: {cpu: 300m}\n")
	os.RemoveAll(filepath.Join(os.Getenv("REPROMILL_CLUSTER_VOLUME"), "repromill", "cache"))
	h := newWeightsHub(t, s.mirror)
	args := s.suite(0.9, "--vllm-weights org/tiny-FP8", "--vllm-weights org/tiny-NVFP4", "--shards", "2")
	at := slices.Index(args, "--mirror")
	args = slices.Delete(args, at, at+2)
	s.env = append(s.env, "HF_ENDPOINT="+h.URL)
	preview := slices.Delete(slices.Clone(args[1:]), slices.Index(args, "--executor")-1, slices.Index(args, "--executor")+1)
	if jobs := s.dryRun(t, preview...); len(jobs) != 2 || !slices.Contains(jobs[0].Spec.Template.Spec.Containers[0].Command, "seed") || jobs[1].Spec.Completions != 2 || len(jobs[1].Spec.Template.Spec.InitContainers) != 2 {
		t.Errorf("the dry run is %+v", jobs)
	}
	for i, a := range preview {
		if a == "--server" {
			preview[i+1] = strings.Replace(preview[i+1], "docker:"+s.image, "vllm", 1)
			preview[i+1], _, _ = strings.Cut(preview[i+1], " ")
		}
	}
	s.env = append(s.env, "REPROMILL_CLUSTER_VLLM_IMAGE="+s.image)
	if sets := s.dryRun(t, append(preview, "--serve", "fp8=vllm serve org/tiny-FP8 --tensor-parallel-size 8 --pipeline-parallel-size 2")...); len(sets) != 3 || sets[0].Kind != "Job" || sets[1].Kind != "NetworkPolicy" || sets[2].Kind != "JobSet" {
		t.Errorf("the dry run over two nodes is %+v", sets)
	}
	run := s.command(args...)
	var out bytes.Buffer
	run.Stdout, run.Stderr = &out, &out
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer run.Process.Kill()
	ended := make(chan error, 1)
	go func() { ended <- run.Wait() }()
	select {
	case <-h.held:
	case err := <-ended:
		t.Fatalf("it ended before anything was seeded: %v\n%s", err, &out)
	case <-time.After(2 * time.Minute):
		t.Fatalf("no seed asks\n%s\n%s", &out, kubectl(t, "get", "pods,jobs", "-n", "repromill"))
	}
	kubectl(t, "delete", "pods", "-n", "repromill", "-l", "repromill.dev/network=listed", "--wait=false")
	waitFor(t, "another seed", func() bool {
		return strings.Count(kubectl(t, "get", "pods", "-n", "repromill", "-l", "repromill.dev/network=listed", "-o", "name"), "pod/") > 1 ||
			strings.Contains(kubectl(t, "get", "pods", "-n", "repromill", "-l", "repromill.dev/network=listed", "-o", "jsonpath={.items[*].status.phase}"), "Failed")
	})
	close(h.release)
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s\n%s", err, &out, clientLogs())
	}
	if !strings.Contains(out.String(), "nvfp4 against fp8") {
		t.Errorf("it said\n%s", &out)
	}
	if n := h.sent.Load(); n > 3 { // the first piece of two models, once again at most
		t.Errorf("the first piece of the weights was sent %d times", n)
	}
}
