"""Names of the methods in reports, by the name of a variant."""

TITLES = {
    "ab": "AB",
    "adaptive": "Adaptive KL",
    "at": "AT",
    "bdkd": "BD-KD",
    "bdkd_wdm": "BD-KD + WDM",
    "cat_kd": "CAT-KD",
    "cc": "CC",
    "cpc": "CPC",
    "crd": "CRD",
    "dist": "DIST",
    "distpp": "DIST++",
    "dkd": "DKD",
    "dkdpp": "DKD++",
    "dml": "DML",
    "dual": "WDM, dual form",
    "fsp": "FSP",
    "ft": "FT",
    "gkd": "GKD",
    "hint": "FitNets",
    "js": "JS",
    "kd": "KD",
    "kd_crd": "KD + CRD",
    "kd_wdm": "KD + WDM",
    "kdpp": "KD++",
    "kdcl": "KDCL",
    "kdsvd": "KDSVD",
    "logit_std": "Logit standardization",
    "mlld": "MLLD",
    "multi_level_ot": "Multi-Level-OT",
    "nd": "ND",
    "nst": "NST",
    "ofd": "OFD",
    "online": "SinKD, online",
    "pkt": "PKT",
    "rkd": "RKD",
    "rkl": "Reverse KL",
    "sdd_dkd": "SDD-DKD",
    "sdd_kd": "SDD-KD",
    "sinkd": "SinKD",
    "sinkd_debiased": "SinKD, debiased",
    "skew": "Skewed KL",
    "sp": "SP",
    "srd": "SRD",
    "srrl": "SRRL",
    "switokd": "SwitOKD",
    "tv": "Total variation",
    "uld": "ULD",
    "vid": "VID",
    "wdm": "WDM",
    "wpc_bjorck": "WPC, Bjorck",
    "wpc_penalty": "WPC, penalty",
    "wpc_spectral": "WPC, spectral",
}


def titled(variants: dict) -> dict:
    """Return the variants with the titles of those that have one."""
    return {
        name: {"title": TITLES[name], **table} if name in TITLES else table
        for name, table in variants.items()
    }
