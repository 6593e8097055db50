"""What is made once and kept: networks, graphs, calibration, engines; each artefact by a recipe that declares it.

A single step gets one artefact of an ad-hoc suite like this; what it needs before is found or made on the way:

    makings = Makings(suite, Places(runs=folder), tell=tell)
    variant = suite.variants[0]
    network = networks.variant_network(makings, variant)        # .facts is a NetworkFacts
    graph = graphs.quantized_graph(makings, variant)            # .path("model.onnx"), .facts.placement
    chosen = calibration.manifest(makings)                      # .facts.images
    path, sidecar = engines.build_engine(makings, plan)
"""
