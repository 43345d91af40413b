package kueue

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// UserError is what the user, or who runs the cluster for them, has to change;
// the message contains the fix.
type UserError struct{ Msg, Fix string }

func (e *UserError) Error() string { return e.Msg + "; " + e.Fix }

// UserError returns the fix.
func (e *UserError) UserError() string { return e.Fix }

// kueueAPI is the version of Kueue's API that this package speaks.
const kueueAPI = "/apis/kueue.x-k8s.io/v1beta2"

// client is the way to one namespace of one cluster.
type client struct {
	kube      kubernetes.Interface
	namespace string
}

// connect reads a kubeconfig as kubectl does: the named files, else KUBECONFIG,
// else ~/.kube/config, else the service account of the pod it runs in. The
// namespace is the context's where none is given.
func connect(kubeconfig, kubeContext, namespace string) (*client, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	if files := filepath.SplitList(kubeconfig); len(files) > 1 {
		rules.Precedence = files
	} else if kubeconfig != "" {
		rules.ExplicitPath = kubeconfig
	}
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: kubeContext})
	cfg, err := loaded.ClientConfig()
	if err != nil {
		return nil, &UserError{"no cluster is configured: " + err.Error(), "point KUBECONFIG at a cluster's configuration, or run `devcluster up` for one on this machine"}
	}
	if namespace == "" {
		if namespace, _, err = loaded.Namespace(); err != nil {
			return nil, fmt.Errorf("read the kubeconfig's namespace: %w", err)
		}
	}
	return newClient(cfg, namespace)
}

func newClient(cfg *rest.Config, namespace string) (*client, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1 // the server protects itself by priority and fairness; see pace
	cfg.UserAgent = "repromill"
	cfg.ContentType = "application/vnd.kubernetes.protobuf"
	cfg.AcceptContentTypes = cfg.ContentType + ",application/json"
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return newPace(rt, time.Now) })
	kube, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	return &client{kube, namespace}, nil
}

// raw reads an object of an API whose types are not this package's.
func (c *client) raw(ctx context.Context, into any, path string, query ...string) error {
	req := c.kube.Discovery().RESTClient().Get().AbsPath(path).SetHeader("Accept", "application/json")
	for i := 0; i+1 < len(query); i += 2 {
		req = req.Param(query[i], query[i+1])
	}
	b, err := req.DoRaw(ctx)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("decode the answer of %s: %w", path, err)
	}
	return nil
}

func (c *client) kueue(resource string) string {
	return kueueAPI + "/namespaces/" + c.namespace + "/" + resource
}

// workload finds the Workload of a Job by the Job's UID: names are cut and
// hashed in ways that differ between versions. nil is none.
func (c *client) workload(ctx context.Context, jobUID string) (*Workload, error) {
	var list struct{ Items []Workload }
	if err := c.raw(ctx, &list, c.kueue("workloads"), "labelSelector", labelJobUID+"="+jobUID); err != nil {
		return nil, err
	}
	if len(list.Items) == 0 {
		return nil, nil
	}
	return &list.Items[0], nil
}

func (c *client) pods(ctx context.Context, job string) ([]corev1.Pod, error) {
	list, err := c.kube.CoreV1().Pods(c.namespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// positions are the places of Workloads in a LocalQueue from 0 on, by name; nil
// where the visibility API is not installed, not allowed, or does not answer.
func (c *client) positions(ctx context.Context, queue string) map[string]int {
	var list struct {
		Items []struct {
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
			PositionInLocalQueue int `json:"positionInLocalQueue"`
		} `json:"items"`
	}
	path := "/apis/visibility.kueue.x-k8s.io/v1beta2/namespaces/" + c.namespace + "/localqueues/" + queue + "/pendingworkloads"
	if c.raw(ctx, &list, path, "limit", "100000") != nil {
		return nil
	}
	out := make(map[string]int, len(list.Items))
	for _, it := range list.Items {
		out[it.Metadata.Name] = it.PositionInLocalQueue
	}
	return out
}

// at is a place in a queue, where it is known.
func at(positions map[string]int, workload string) *int {
	if p, ok := positions[workload]; ok {
		return &p
	}
	return nil
}

// identity tells clusters apart: a Job that is not found in another cluster is
// not gone.
func (c *client) identity(ctx context.Context) (string, error) {
	ns, err := c.kube.CoreV1().Namespaces().Get(ctx, c.namespace, metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	return string(ns.UID), nil
}

// checkKueue refuses a cluster without a Kueue that this package can speak to.
func (c *client) checkKueue(ctx context.Context) error {
	var groups struct {
		Resources []struct {
			Name string `json:"name"`
		} `json:"resources"`
	}
	err := c.raw(ctx, &groups, kueueAPI)
	if apierrors.IsNotFound(err) {
		var versions struct {
			Versions []struct {
				GroupVersion string `json:"groupVersion"`
			} `json:"versions"`
		}
		if c.raw(ctx, &versions, "/apis/kueue.x-k8s.io") == nil && len(versions.Versions) > 0 {
			return &UserError{"the cluster's Kueue serves " + versions.Versions[0].GroupVersion + " and not v1beta2", "have Kueue upgraded to v0.15 or newer"}
		}
		return &UserError{"the cluster has no Kueue", "have it installed (https://kueue.sigs.k8s.io/docs/installation/), or use another executor"}
	}
	return err
}

// temporary reports whether an error of the API may be gone in a moment: the
// server is down or busy, or a webhook does not answer.
func temporary(err error) bool {
	var nerr net.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case apierrors.IsServerTimeout(err), apierrors.IsTimeout(err), apierrors.IsTooManyRequests(err), apierrors.IsServiceUnavailable(err):
		return true
	case apierrors.IsInternalError(err):
		return strings.Contains(err.Error(), "failed calling webhook")
	case errors.As(err, &nerr):
		return true
	}
	return strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "EOF")
}

// explain turns an error of the API into one that says what to do.
func (c *client) explain(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "violates PodSecurity"):
		return &UserError{what + ": the namespace's Pod Security refuses the pod: " + err.Error(), "report this: the pod is meant to pass the restricted standard"}
	case apierrors.IsForbidden(err):
		return &UserError{what + ": the cluster does not allow it: " + err.Error(), "have an administrator apply examples/cluster/submitter.yaml to namespace " + c.namespace}
	case apierrors.IsUnauthorized(err):
		return &UserError{what + ": the cluster does not know you: " + err.Error(), "log in again: the token of your kubeconfig may have expired"}
	case apierrors.IsNotFound(err) && strings.Contains(err.Error(), "namespaces"):
		return &UserError{what + ": the namespace " + c.namespace + " does not exist", "create it, or name another one"}
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return &UserError{what + ": the cluster refuses the Job: " + err.Error(), "correct what the message names"}
	case strings.Contains(err.Error(), "failed calling webhook"):
		return fmt.Errorf("%s: Kueue's webhook does not answer, so no Job can be made; try again when its controller runs: %w", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
