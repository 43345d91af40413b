// Package sku is the catalogue of GPUs: what one GPU of a model can do at most,
// by dense arithmetic, and how its neighbours are reached. Every number carries
// its kind and its source; a figure that counts structured sparsity has no
// place here. Prices are no facts about a GPU: the catalogue holds dated ranges
// as a default that the user's configuration replaces.
package sku

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/repromill/repromill/planner/spec"
)

// Cell is one number of the catalogue. The zero Cell means that the GPU has no
// such thing.
type Cell struct {
	Value  float64   `json:"value"`
	Kind   spec.Kind `json:"kind,omitempty"`
	Source string    `json:"source,omitempty"`
	Note   string    `json:"note,omitempty"`
}

// Arch is a generation whose kernels behave alike.
type Arch string

// The generations of the catalogue. Blackwell's data-centre parts (compute
// capability 10.x) and its workstation parts (12.x) have different tensor cores
// and different kernels.
const (
	Volta       Arch = "volta"
	Ampere      Arch = "ampere"
	Ada         Arch = "ada"
	Hopper      Arch = "hopper"
	Blackwell   Arch = "blackwell"
	BlackwellRT Arch = "blackwell-rtx"
)

// SKU is one GPU model. Rates are of one GPU with dense operands; consumer parts
// are entered with 32-bit accumulation, which is what inference engines use.
type SKU struct {
	ID         string `json:"id"`
	Name       string `json:"name"`
	Arch       Arch   `json:"arch"`
	Capability int    `json:"capability"` // 90 for compute capability 9.0

	MemoryGB  Cell `json:"memory_gb"`     // 10^9 bytes
	Bandwidth Cell `json:"bandwidth_tbs"` // 10^12 bytes per second
	BF16      Cell `json:"bf16_tflops"`   // FP16 on Volta
	FP8       Cell `json:"fp8_tflops"`
	FP4       Cell `json:"fp4_tflops"`
	FP32      Cell `json:"fp32_tflops"` // without tensor cores
	Link      Cell `json:"link_gbs"`    // to the other GPUs of the node, 10^9 bytes per second and direction
	Network   Cell `json:"network_gbs"` // to GPUs of other nodes, as its usual server has it
	PowerW    Cell `json:"power_w"`

	Fabric string   `json:"fabric"` // nvlink|nvlink-bridge|pcie|none
	Domain int      `json:"domain"` // GPUs that are reached at the rate of Link
	NVFP4  string   `json:"nvfp4"`  // what an NVFP4 checkpoint computes: w4a4|w4a16|w4a4 or w4a16|none
	Form   string   `json:"form"`   // sxm|pcie|nvl|superchip|…
	names  []string // further spellings
}

// Has reports whether the tensor cores compute in the format: bf16, fp8 or fp4.
func (s *SKU) Has(format string) bool { return s.rate(format).Value > 0 }

// Rate is the dense rate of a format in 10^12 operations per second. Formats
// that the GPU lacks are computed in the next wider one.
func (s *SKU) Rate(format string) float64 {
	for _, f := range []string{"fp4", "fp8", "bf16"}[max(0, slices.Index([]string{"fp4", "fp8", "bf16"}, format)):] {
		if c := s.rate(f); c.Value > 0 {
			return c.Value
		}
	}
	return s.BF16.Value
}

func (s *SKU) rate(format string) Cell {
	switch format {
	case "fp4":
		return s.FP4
	case "fp8":
		return s.FP8
	}
	return s.BF16
}

// UnknownError says that no GPU of the catalogue is meant by a name.
type UnknownError struct {
	Name string
	Near []string // ids, nearest first
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("unknown GPU %q", e.Name)
}

// UserError is what the user can do.
func (e *UnknownError) UserError() string {
	return "did you mean " + strings.Join(e.Near, ", ") + "? `repromill estimate skus` lists all"
}

// Catalogue returns all GPUs, newest generation last.
func Catalogue() []*SKU {
	all := catalogue()
	out := make([]*SKU, len(all))
	for i := range all {
		out[i] = &all[i]
	}
	return out
}

// Find returns the GPU that a name means: an id, or the way that drivers,
// benchmarks and clouds spell it ("NVIDIA H100 80GB HBM3", "H200-SXM-141GB").
// Its error is a [*UnknownError].
func Find(name string) (*SKU, error) {
	all := catalogue()
	want := words(name)
	best, score := -1, 0
	for i := range all {
		for _, n := range append([]string{all[i].ID}, all[i].names...) {
			if s := match(want, words(n), &all[i]); s > score {
				best, score = i, s
			}
		}
	}
	if best >= 0 {
		return &all[best], nil
	}
	return nil, &UnknownError{Name: name, Near: nearest(strings.ToLower(name), all)}
}

// noise are the words that say nothing about which GPU is meant.
var noise = map[string]bool{
	"nvidia": true, "geforce": true, "tesla": true, "tensor": true, "core": true, "gpu": true, "hbm3": true, "hbm3e": true,
	"hbm2e": true, "hbm2": true, "gddr7": true, "gddr6": true, "gddr6x": true, "dgx": true, "hgx": true, "superchip": true, "generation": true,
}

// words splits a name at everything that is neither a letter nor a digit.
func words(s string) []string {
	f := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	return slices.DeleteFunc(f, func(w string) bool { return noise[w] })
}

// forms are words that tell variants of one GPU apart. A name without any means
// the first variant of the catalogue.
var forms = map[string]string{
	"sxm": "sxm", "sxm2": "sxm", "sxm4": "sxm", "sxm5": "sxm", "sxm6": "sxm",
	"pcie": "pcie", "nvl": "nvl", "nvl4": "", "nvl8": "", "nvl72": "", "nvl36": "",
	"server": "server", "workstation": "", "edition": "", "blackwell": "", "ada": "", "lovelace": "", "hopper": "", "grace": "",
}

// match scores how well the words of a name mean a GPU whose name has the words
// of have; 0 is not at all. Words of have must all occur; words beyond must be
// of the kinds that tell variants apart, and memory decides between those.
func match(want, have []string, s *SKU) int {
	for _, h := range have {
		if !slices.Contains(want, h) {
			return 0
		}
	}
	score := 100 * len(have)
	for _, w := range want {
		if slices.Contains(have, w) {
			continue
		}
		if gb, ok := gigabytes(w); ok {
			off := gb/s.MemoryGB.Value - 1
			if off < -0.2 || off > 0.2 {
				return 0
			}
			score += 20 - int(100*max(off, -off))
			continue
		}
		form, ok := forms[w]
		switch {
		case !ok:
			return 0
		case form == "":
		case form == s.Form:
			score += 50
		case (form == "sxm" || form == "nvl") && (s.Form == "superchip" || s.Arch == Blackwell):
			// There is one form only, whatever it is called.
		default:
			return 0
		}
	}
	return score
}

// gigabytes reads "80gb" and "144g".
func gigabytes(w string) (float64, bool) {
	n, ok := strings.CutSuffix(strings.TrimSuffix(w, "b"), "g")
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseUint(n, 10, 16)
	return float64(v), err == nil
}

// nearest are the three ids with the smallest edit distance.
func nearest(name string, all []SKU) []string {
	if len(name) > 64 {
		name = name[:64]
	}
	type near struct {
		id string
		d  int
	}
	list := make([]near, len(all))
	for i := range all {
		first, _, _ := strings.Cut(name, "-")
		list[i] = near{all[i].ID, min(distance(name, all[i].ID), distance(first, all[i].ID))}
	}
	slices.SortStableFunc(list, func(a, b near) int { return a.d - b.d })
	out := make([]string, 0, 3)
	for _, n := range list[:3] {
		out = append(out, n.id)
	}
	return out
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next := min(row[j+1]+1, row[j]+1, prev+cost)
			prev, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
