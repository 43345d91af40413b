package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// versions names what the cluster is made of.
type versions struct {
	Kubernetes string `json:"kubernetes"`
	Kueue      string `json:"kueue"`
	Etcd       string `json:"etcd"`
	JobSet     string `json:"jobset"`  // of Kueue's own module
	Objects    string `json:"objects"` // versitygw, the S3 server
	Kwok       string `json:"kwok"`    // what plays the kubelets of simulated nodes
	Bin        string `json:"bin"`     // where the programs lie
}

func (v versions) binDir() string { return v.Bin }

// pinned reads the versions from the modules. All that the modules of the
// cluster itself say names the folder of the built programs.
func pinned(src, cache string) (versions, error) {
	sum := sha256.New()
	io.WriteString(sum, runtime.Version())
	mods := map[string]string{}
	for _, m := range []string{"controlplane", "kueue"} {
		for _, name := range []string{"go.mod", "go.sum"} {
			b, err := os.ReadFile(filepath.Join(src, m, name))
			if err != nil {
				return versions{}, fmt.Errorf("read the modules of the cluster: %w", err)
			}
			sum.Write(b)
			mods[m+"/"+name] = string(b)
		}
	}
	v := versions{
		Kubernetes: required(mods["controlplane/go.mod"], "k8s.io/kubernetes"), Kueue: required(mods["kueue/go.mod"], "sigs.k8s.io/kueue"),
		JobSet: required(mods["kueue/go.mod"], "sigs.k8s.io/jobset"),
		Etcd:   required(mods["controlplane/go.mod"], "go.etcd.io/etcd/server/v3"),
	}
	for _, m := range []struct {
		module, path string
		version      *string
	}{{"objectstore", "github.com/versity/versitygw", &v.Objects}, {"kwok", "sigs.k8s.io/kwok", &v.Kwok}} {
		b, err := os.ReadFile(filepath.Join(src, m.module, "go.mod"))
		if err != nil {
			return v, fmt.Errorf("read the modules of the cluster: %w", err)
		}
		*m.version = required(string(b), m.path)
	}
	if v.Kubernetes == "" || v.Kueue == "" || v.Etcd == "" || v.Objects == "" || v.Kwok == "" || v.JobSet == "" {
		return v, errors.New("the modules of the cluster do not name their versions")
	}
	v.Bin = filepath.Join(cache, "bin", fmt.Sprintf("k8s-%s_kueue-%s_%s", v.Kubernetes, v.Kueue, hex.EncodeToString(sum.Sum(nil)[:4])))
	return v, nil
}

// required is the version of a module in the text of a go.mod.
func required(mod, path string) string {
	for _, line := range strings.Split(mod, "\n") {
		f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require "))
		if len(f) >= 2 && f[0] == path && strings.HasPrefix(f[1], "v") {
			return f[1]
		}
	}
	return ""
}

// target is one program.
type target struct{ name, module, pkg, ldflags string }

// objectStore is the S3 server's program: its version is not in the folder's name.
func (v versions) objectStore() string { return "versitygw-" + v.Objects }

// simulator is what plays the kubelets of simulated nodes: built when it is
// first asked for, its version in its own name.
func (v versions) simulator() target {
	return target{"kwok-" + v.Kwok, "kwok", "sigs.k8s.io/kwok/cmd/kwok", "-s -w"}
}

func (v versions) targets() []target {
	const strip = "-s -w"
	kube := strip
	minor := strings.Split(v.Kubernetes, ".")[1]
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		// Clients refuse a server whose version they cannot parse.
		kube += fmt.Sprintf(" -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=1 -X %[1]s.gitMinor=%[3]s", pkg, v.Kubernetes, minor)
	}
	out := []target{
		{"etcd", "controlplane", "go.etcd.io/etcd/server/v3", strip},
		{"kueue", "kueue", "sigs.k8s.io/kueue/cmd/kueue", strip},
		{"pause", ".", "./pause", strip},
		{v.objectStore(), "objectstore", "github.com/versity/versitygw/cmd/versitygw", strip},
	}
	for _, name := range []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"} {
		out = append(out, target{name, "controlplane", "k8s.io/kubernetes/cmd/" + name, kube})
	}
	return out
}

// build makes those programs that are not in the cache yet.
func (c *cluster) build(ctx context.Context, src string, all []target) error {
	var todo []target
	for _, t := range all {
		if _, err := os.Stat(filepath.Join(c.Versions.binDir(), t.name)); err != nil {
			todo = append(todo, t)
		}
	}
	if len(todo) == 0 {
		return nil
	}
	if err := os.MkdirAll(c.Versions.binDir(), 0o755); err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	for _, t := range todo {
		from := time.Now()
		c.say("building %s …", t.name)
		tmp := filepath.Join(c.Versions.binDir(), "."+t.name)
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", t.ldflags, "-o", tmp, t.pkg)
		cmd.Dir = filepath.Join(src, t.module)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", t.name, err, out)
		}
		if err := os.Rename(tmp, filepath.Join(c.Versions.binDir(), t.name)); err != nil {
			return fmt.Errorf("build %s: %w", t.name, err)
		}
		c.say("built %s in %s", t.name, time.Since(from).Round(time.Second))
	}
	return nil
}

// sourceDir finds this command's folder in the checkout that it is run from.
func sourceDir(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "github.com/repromill/repromill/cmd/devcluster").Output()
	if err != nil {
		return "", &needError{"the source of the cluster's programs is not here", "run devcluster inside of a checkout of repromill"}
	}
	return strings.TrimSpace(string(out)), nil
}

// moduleDir is where a module that the cluster's ones require lies; it is
// downloaded if it is not there.
func moduleDir(ctx context.Context, src, module, path string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", path)
	cmd.Dir = filepath.Join(src, module)
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off")
	out, err := cmd.Output()
	var m struct{ Dir, Error string }
	if jerr := json.Unmarshal(out, &m); err == nil {
		err = jerr
	}
	if err != nil {
		return "", fmt.Errorf("find module %s: %w: %s", path, err, m.Error)
	}
	return m.Dir, nil
}
