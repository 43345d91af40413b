package sku

import (
	"slices"

	"github.com/repromill/repromill/planner/spec"
)

// The sources of the catalogue.
const (
	aic  = "ai-dynamo/aiconfigurator aic-core/src/aiconfigurator_core/systems @095f58a"
	ifx  = "SemiAnalysisAI/InferenceX-app packages/app/src/lib/gpu-specs.ts @77ca49a"
	v100 = "NVIDIA V100 datasheet, 2020"
	a100 = "NVIDIA A100 datasheet, 2021"
	h100 = "NVIDIA H100 datasheet, 2023; sparse figures halved"
	h200 = "NVIDIA H200 datasheet, 2024; sparse figures halved"
	gh   = "NVIDIA GH200 datasheet, 2024; sparse figures halved"
	ada  = "NVIDIA Ada GPU architecture whitepaper v2.1; 32-bit accumulation"
	bw   = "NVIDIA Blackwell architecture technical brief, 2024; sparse figures halved"
	rtx  = "NVIDIA RTX Blackwell GPU architecture whitepaper v1.1; sparse figures halved, 32-bit accumulation"
	pro  = "NVIDIA RTX PRO Blackwell datasheets, 2025; sparse figures halved"
	gb10 = "NVIDIA DGX Spark datasheet, 2025; sparse figure halved"
	h20  = "NVIDIA H20 product brief as quoted by resellers"
	pcie = "PCI Express base specification, 16 lanes"
	nics = "network adapters of NVIDIA's reference servers: DGX-1, DGX A100, DGX H100, DGX B200, DGX B300, GB200 NVL72; one a GPU unless noted"
	a6k  = "NVIDIA RTX A6000 datasheet, 2021; sparse figures halved"
)

func pub(v float64, source string) Cell { return Cell{Value: v, Kind: spec.Published, Source: source} }

// der is a number that follows from others of the same part.
func der(v float64, source, note string) Cell {
	return Cell{Value: v, Kind: spec.Derived, Source: source, Note: note}
}

// guess is a number that no page of the maker states.
func guess(v float64, source, note string) Cell {
	return Cell{Value: v, Kind: spec.Assumed, Source: source, Note: note}
}

const half = "half of the next narrower format"

func catalogue() []SKU {
	return slices.Concat(older(), hopper(), blackwell(), workstation())
}

func older() []SKU {
	return []SKU{
		{ID: "v100", Name: "V100 SXM2 32GB", Arch: Volta, Capability: 70, Form: "sxm", Fabric: "nvlink", Domain: 8, NVFP4: "none",
			MemoryGB: pub(32, v100), Bandwidth: pub(0.9, v100), BF16: Cell{Value: 125, Kind: spec.Published, Source: v100, Note: "FP16: Volta has no BF16"},
			FP32: pub(15.7, v100), Network: der(6.25, nics, "four links of 100 Gb/s for eight GPUs"), Link: pub(150, v100), PowerW: pub(300, v100)},
		{ID: "v100-16gb", Name: "V100 SXM2 16GB", Arch: Volta, Capability: 70, Form: "sxm", Fabric: "nvlink", Domain: 8, NVFP4: "none",
			MemoryGB: pub(16, v100), Bandwidth: pub(0.9, v100), BF16: Cell{Value: 125, Kind: spec.Published, Source: v100, Note: "FP16: Volta has no BF16"},
			FP32: pub(15.7, v100), Network: der(6.25, nics, "four links of 100 Gb/s for eight GPUs"), Link: pub(150, v100), PowerW: pub(300, v100), names: []string{"v100"}},
		{ID: "a100", Name: "A100 SXM4 80GB", Arch: Ampere, Capability: 80, Form: "sxm", Fabric: "nvlink", Domain: 8, NVFP4: "w4a16",
			MemoryGB: pub(80, aic), Bandwidth: pub(2.039, aic), BF16: pub(312, aic), FP32: pub(19.5, a100), Network: pub(25, nics), Link: pub(300, aic), PowerW: pub(400, aic)},
		{ID: "a100-40gb", Name: "A100 SXM4 40GB", Arch: Ampere, Capability: 80, Form: "sxm", Fabric: "nvlink", Domain: 8, NVFP4: "w4a16",
			MemoryGB: pub(40, a100), Bandwidth: pub(1.555, a100), BF16: pub(312, a100), FP32: pub(19.5, a100), Network: pub(25, nics), Link: pub(300, a100), PowerW: pub(400, a100), names: []string{"a100"}},
		{ID: "a100-pcie", Name: "A100 PCIe 80GB", Arch: Ampere, Capability: 80, Form: "pcie", Fabric: "pcie", Domain: 8, NVFP4: "w4a16",
			MemoryGB: pub(80, a100), Bandwidth: pub(1.935, a100), BF16: pub(312, a100), FP32: pub(19.5, a100), Network: guess(12.5, nics, "a 200 Gb/s adapter for two GPUs"), Link: pub(32, pcie+" 4.0"), PowerW: pub(300, a100), names: []string{"a100"}},
		{ID: "rtx-a6000", Name: "RTX A6000 48GB", Arch: Ampere, Capability: 86, Form: "pcie", Fabric: "pcie", Domain: 8, NVFP4: "w4a16",
			MemoryGB: pub(48, a6k), Bandwidth: pub(0.768, a6k), BF16: der(154.8, a6k, "half of the sparse figure"), FP32: pub(38.7, a6k),
			Network: guess(1.25, nics, "10 Gb/s Ethernet of a workstation"), Link: pub(32, pcie+" 4.0"), PowerW: pub(300, a6k), names: []string{"a6000", "rtxa6000"}},
		{ID: "l40s", Name: "L40S", Arch: Ada, Capability: 89, Form: "pcie", Fabric: "pcie", Domain: 8, NVFP4: "w4a16",
			MemoryGB: pub(48, aic), Bandwidth: pub(0.864, aic), BF16: pub(362, aic), FP8: pub(733, aic), FP32: pub(91.6, ada), Network: guess(12.5, nics, "a 200 Gb/s adapter for two GPUs"), Link: pub(32, aic), PowerW: pub(350, aic)},
		{ID: "rtx-4090", Name: "GeForce RTX 4090", Arch: Ada, Capability: 89, Form: "pcie", Fabric: "pcie", Domain: 8, NVFP4: "w4a16",
			MemoryGB: pub(24, ada), Bandwidth: pub(1.008, ada), BF16: pub(165.2, ada), FP8: pub(330.3, ada), FP32: pub(82.6, ada), Network: guess(1.25, nics, "10 Gb/s Ethernet of a workstation"), Link: pub(32, pcie+" 4.0"), PowerW: pub(450, ada),
			names: []string{"4090", "rtx4090"}},
		{ID: "rtx-4060", Name: "GeForce RTX 4060", Arch: Ada, Capability: 89, Form: "pcie", Fabric: "pcie", Domain: 1, NVFP4: "w4a16",
			MemoryGB: pub(8, ada), Bandwidth: pub(0.272, ada), BF16: der(30.2, ada, "RTX 4090 by cores and clock"), FP8: der(60.5, ada, "twice BF16"),
			FP32: pub(15.1, ada), Network: guess(1.25, nics, "10 Gb/s Ethernet of a workstation"), Link: der(16, pcie+" 4.0", "8 of 16 lanes"), PowerW: pub(115, ada), names: []string{"4060", "rtx4060"}},
	}
}

func hopper() []SKU {
	return []SKU{
		{ID: "h100", Name: "H100 SXM5 80GB", Arch: Hopper, Capability: 90, Form: "sxm", Fabric: "nvlink", Domain: 8, NVFP4: "w4a16",
			MemoryGB: pub(80, aic), Bandwidth: pub(3.35, aic), BF16: pub(989, ifx), FP8: pub(1979, ifx), FP32: pub(67, h100), Network: pub(50, nics), Link: pub(450, aic), PowerW: pub(700, aic),
			names: []string{"h100-sxm"}},
		{ID: "h100-pcie", Name: "H100 PCIe 80GB", Arch: Hopper, Capability: 90, Form: "pcie", Fabric: "pcie", Domain: 8, NVFP4: "w4a16",
			MemoryGB: pub(80, aic), Bandwidth: pub(2.0, aic), BF16: pub(756, aic), FP8: pub(1513, aic), FP32: pub(51, h100), Network: guess(25, nics, "a 400 Gb/s adapter for two GPUs"), Link: pub(64, pcie+" 5.0"), PowerW: pub(350, aic),
			names: []string{"h100"}},
		{ID: "h100-nvl", Name: "H100 NVL 94GB", Arch: Hopper, Capability: 90, Form: "nvl", Fabric: "nvlink-bridge", Domain: 2, NVFP4: "w4a16",
			MemoryGB: pub(94, h100), Bandwidth: pub(3.9, h100), BF16: pub(835, h100), FP8: pub(1671, h100), FP32: pub(60, h100), Network: guess(25, nics, "a 400 Gb/s adapter for two GPUs"), Link: pub(300, h100), PowerW: pub(400, h100),
			names: []string{"h100"}},
		{ID: "h200", Name: "H200 SXM 141GB", Arch: Hopper, Capability: 90, Form: "sxm", Fabric: "nvlink", Domain: 8, NVFP4: "w4a16",
			MemoryGB: pub(141, aic), Bandwidth: pub(4.8, aic), BF16: pub(989, ifx), FP8: pub(1979, ifx), FP32: pub(67, h200), Network: pub(50, nics), Link: pub(450, aic), PowerW: pub(700, aic)},
		{ID: "h200-nvl", Name: "H200 NVL 141GB", Arch: Hopper, Capability: 90, Form: "nvl", Fabric: "nvlink-bridge", Domain: 4, NVFP4: "w4a16",
			MemoryGB: pub(141, h200), Bandwidth: pub(4.8, h200), BF16: pub(835, h200), FP8: pub(1671, h200), FP32: pub(60, h200), Network: guess(25, nics, "a 400 Gb/s adapter for two GPUs"), Link: pub(450, h200), PowerW: pub(600, h200),
			names: []string{"h200"}},
		{ID: "h20", Name: "H20 96GB", Arch: Hopper, Capability: 90, Form: "sxm", Fabric: "nvlink", Domain: 8, NVFP4: "w4a16",
			MemoryGB: pub(96, h20), Bandwidth: pub(4.0, h20), BF16: pub(148, h20), FP8: pub(296, h20), FP32: pub(44, h20), Network: pub(50, nics), Link: pub(450, h20), PowerW: pub(400, h20)},
		{ID: "gh200", Name: "GH200 96GB", Arch: Hopper, Capability: 90, Form: "superchip", Fabric: "nvlink", Domain: 1, NVFP4: "w4a16",
			MemoryGB: pub(96, gh), Bandwidth: pub(4.0, gh), BF16: pub(989, gh), FP8: pub(1979, gh), FP32: pub(67, gh), Network: pub(50, nics), Link: pub(450, gh), PowerW: pub(700, gh),
			names: []string{"gh200-480gb"}}, // drivers name it by the memory of its CPU
		{ID: "gh200-144gb", Name: "GH200 144GB", Arch: Hopper, Capability: 90, Form: "superchip", Fabric: "nvlink", Domain: 2, NVFP4: "w4a16",
			MemoryGB: pub(144, gh), Bandwidth: pub(4.9, gh), BF16: pub(989, gh), FP8: pub(1979, gh), FP32: pub(67, gh), Network: pub(50, nics), Link: pub(450, gh), PowerW: pub(700, gh),
			names: []string{"gh200"}},
	}
}

func blackwell() []SKU {
	return []SKU{
		{ID: "b100", Name: "B100 SXM", Arch: Blackwell, Capability: 100, Form: "sxm", Fabric: "nvlink", Domain: 8, NVFP4: "w4a4",
			MemoryGB: pub(180, bw), Bandwidth: pub(8, bw), BF16: der(1750, bw, half), FP8: der(3500, bw, half), FP4: pub(7000, bw),
			FP32: pub(60, bw), Network: pub(50, nics), Link: pub(900, bw), PowerW: pub(700, bw)},
		{ID: "b200", Name: "B200 SXM 180GB", Arch: Blackwell, Capability: 100, Form: "sxm", Fabric: "nvlink", Domain: 8, NVFP4: "w4a4",
			MemoryGB: pub(180, aic), Bandwidth: Cell{Value: 7.7, Kind: spec.Published, Source: aic, Note: "8.0 elsewhere: " + ifx},
			BF16: pub(2250, aic), FP8: pub(4500, aic), FP4: pub(9000, aic), FP32: pub(75, bw), Network: pub(50, nics), Link: pub(900, aic), PowerW: pub(1000, aic)},
		{ID: "gb200", Name: "GB200 186GB", Arch: Blackwell, Capability: 100, Form: "superchip", Fabric: "nvlink", Domain: 72, NVFP4: "w4a4",
			MemoryGB: pub(186, aic), Bandwidth: pub(8, aic), BF16: pub(2500, aic), FP8: pub(5000, aic), FP4: pub(10000, aic),
			FP32: pub(80, bw), Network: pub(50, nics), Link: pub(900, aic), PowerW: pub(1200, aic)},
		{ID: "b300", Name: "B300 SXM 270GB", Arch: Blackwell, Capability: 103, Form: "sxm", Fabric: "nvlink", Domain: 8, NVFP4: "w4a4",
			MemoryGB: Cell{Value: 270, Kind: spec.Published, Source: aic, Note: "288 before reservation"}, Bandwidth: Cell{Value: 7.75, Kind: spec.Published, Source: aic, Note: "8.0 elsewhere: " + ifx},
			BF16: pub(2250, aic), FP8: pub(4500, aic), FP4: Cell{Value: 13500, Kind: spec.Published, Source: ifx, Note: "14,000 elsewhere: " + aic}, FP32: pub(75, bw), Network: pub(100, nics), Link: pub(900, aic), PowerW: pub(1100, aic)},
		{ID: "gb300", Name: "GB300 279GB", Arch: Blackwell, Capability: 103, Form: "superchip", Fabric: "nvlink", Domain: 72, NVFP4: "w4a4",
			MemoryGB: Cell{Value: 279, Kind: spec.Published, Source: aic, Note: "288 before reservation"}, Bandwidth: pub(8, aic),
			BF16: pub(2500, aic), FP8: pub(5000, aic), FP4: pub(15000, aic), FP32: pub(80, bw), Network: pub(100, nics), Link: pub(900, aic), PowerW: pub(1400, aic)},
	}
}

func workstation() []SKU {
	const either = "w4a4 or w4a16"
	return []SKU{
		{ID: "rtx-pro-6000", Name: "RTX PRO 6000 Blackwell Workstation 96GB", Arch: BlackwellRT, Capability: 120, Form: "pcie", Fabric: "pcie", Domain: 8, NVFP4: either,
			MemoryGB: pub(96, aic), Bandwidth: pub(1.792, aic), BF16: der(500, pro, half), FP8: der(1000, pro, half), FP4: pub(2000, pro),
			FP32: pub(125, pro), Network: guess(1.25, nics, "10 Gb/s Ethernet of a workstation"), Link: pub(64, pcie+" 5.0"), PowerW: pub(600, pro), names: []string{"rtx-6000-pro", "rtx6000-pro", "rtx-pro6000", "rtxpro6000", "pro-6000", "rtx6000pro"}},
		{ID: "rtx-pro-6000-server", Name: "RTX PRO 6000 Blackwell Server Edition 96GB", Arch: BlackwellRT, Capability: 120, Form: "server", Fabric: "pcie", Domain: 8, NVFP4: either,
			MemoryGB: pub(96, pro), Bandwidth: pub(1.597, pro), BF16: der(468, pro, half), FP8: der(936, pro, half), FP4: pub(1871, pro),
			FP32: pub(120, pro), Network: guess(25, nics, "a 400 Gb/s adapter for two GPUs"), Link: pub(64, pcie+" 5.0"), PowerW: pub(600, pro), names: []string{"rtx-pro-6000-se", "rtx-pro-6000-bse"}},
		{ID: "rtx-pro-4500", Name: "RTX PRO 4500 Blackwell 32GB", Arch: BlackwellRT, Capability: 120, Form: "pcie", Fabric: "pcie", Domain: 4, NVFP4: either,
			MemoryGB: pub(32, pro), Bandwidth: pub(0.896, pro), BF16: der(211, pro, half), FP8: der(422, pro, half), FP4: pub(843, pro),
			FP32: guess(54.9, pro, "by cores and clock"), Network: guess(1.25, nics, "10 Gb/s Ethernet of a workstation"), Link: pub(64, pcie+" 5.0"), PowerW: pub(200, pro), names: []string{"rtx-pro4500", "pro-4500"}},
		{ID: "rtx-5090", Name: "GeForce RTX 5090 32GB", Arch: BlackwellRT, Capability: 120, Form: "pcie", Fabric: "pcie", Domain: 8, NVFP4: either,
			MemoryGB: pub(32, rtx), Bandwidth: pub(1.792, rtx), BF16: pub(209.5, rtx), FP8: pub(419, rtx),
			FP4:  Cell{Value: 1676, Kind: spec.Published, Source: rtx, Note: "FP4 accumulates in 32 bits at full rate, FP8 and BF16 at half"},
			FP32: pub(104.8, rtx), Network: guess(1.25, nics, "10 Gb/s Ethernet of a workstation"), Link: pub(64, pcie+" 5.0"), PowerW: pub(575, rtx), names: []string{"5090", "rtx5090"}},
		{ID: "gb10", Name: "DGX Spark GB10 128GB", Arch: BlackwellRT, Capability: 121, Form: "superchip", Fabric: "none", Domain: 1, NVFP4: either,
			MemoryGB: pub(128, gb10), Bandwidth: pub(0.273, gb10), BF16: guess(125, gb10, half), FP8: guess(250, gb10, half), FP4: pub(500, gb10),
			FP32: guess(31, gb10, "by cores and clock"), Network: pub(25, gb10), Link: Cell{Value: 25, Kind: spec.Published, Source: gb10, Note: "200 Gb/s network"}, PowerW: pub(140, gb10), names: []string{"spark", "spark-gb10"}},
	}
}
