package kueue

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const twoFlavors = `{"spec":{"resourceGroups":[{"coveredResources":["cpu","memory","nvidia.com/gpu"],"flavors":[
 {"name":"h200","resources":[{"name":"cpu","nominalQuota":"64"},{"name":"nvidia.com/gpu","nominalQuota":"8"}]},
 {"name":"b200","resources":[{"name":"cpu","nominalQuota":"64"},{"name":"nvidia.com/gpu","nominalQuota":"16"}]}]}]},
 "status":{"flavorsReservation":[{"name":"h200","resources":[{"name":"nvidia.com/gpu","total":"6"}]},{"name":"b200","resources":[{"name":"nvidia.com/gpu","total":"0"}]}]}}`

func TestCompare(t *testing.T) {
	want := func(gpus string) corev1.ResourceList {
		l := corev1.ResourceList{"cpu": resource.MustParse("4")}
		if gpus != "" {
			l[gpuResource] = resource.MustParse(gpus)
		}
		return l
	}
	for _, tc := range []struct {
		name         string
		queue        string
		want         corev1.ResourceList
		pending      int
		fits, flavor string
		reason       string
	}{
		{"free", twoFlavors, want("2"), 0, "now", "h200", "that much free"},
		{"free, but others wait", twoFlavors, want("2"), 3, "later", "h200", "3 wait"},
		{"busy", twoFlavors, want("4"), 0, "later", "h200", "busy"},
		{"the second flavour only", twoFlavors, want("16"), 0, "now", "b200", "free"},
		{"never", twoFlavors, want("32"), 0, "never", "", "asks for 32 of nvidia.com/gpu"},
		{"a cohort may lend", strings.Replace(twoFlavors, `{"spec":{`, `{"spec":{"cohortName":"all",`, 1), want("32"), 0, "unknown", "", "cohort all"},
		{"no GPUs in the queue", strings.ReplaceAll(twoFlavors, "nvidia.com/gpu", "example.com/other"), want("1"), 0, "never", "", "no flavour"},
		{"no GPUs asked for", twoFlavors, want(""), 0, "now", "h200", "free"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var cq clusterQueue
			if err := json.Unmarshal([]byte(tc.queue), &cq); err != nil {
				t.Fatal(err)
			}
			x := Explanation{Pending: tc.pending}
			offline(nil).compare(&x, cq, tc.want)
			if x.Fits != tc.fits || tc.flavor != "" && x.Flavor != tc.flavor || !strings.Contains(x.Reason, tc.reason) {
				t.Errorf("%+v, want %s in %q because %q", x, tc.fits, tc.flavor, tc.reason)
			}
			if (x.Fits == "never") != (x.Fix != "") {
				t.Errorf("what never fits names a fix, and nothing else does: %+v", x)
			}
		})
	}
}
