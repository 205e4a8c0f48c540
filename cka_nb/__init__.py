"Contrastive Knowledge Amalgamation: several trained image classifiers and unlabelled images in, one compact student out."
